"""Programs that try to be graded as passed without solving the task, or to reach outside the sandbox.

The task is to double a number. A forger returns wrong values and tampers with the grading. A breaker returns the right
value exactly when its break succeeded, so that "graded as passed" means "broke out". `{...}` fields are filled in by
the tests: a port that listens, a file that must not change, a process that must live, a secret in the environment.
"""

from __future__ import annotations

# ruff: noqa: E501  (programs and answers are quoted as they are)

TEST = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(7) == 14\n    assert candidate(10) == 20\n"
PROMPT = 'def double(x):\n    """Twice x."""\n'

FORGERS: dict[str, str] = {
    "always-equal object": "class E:\n    def __eq__(self, o): return True\n    __hash__ = None\ndef double(x): return E()",
    "always-equal int": "class E(int):\n    def __eq__(self, o): return True\n    __hash__ = int.__hash__\ndef double(x): return E(1)",
    "never-unequal str": "class E(str):\n    def __eq__(self, o): return True\n    def __ne__(self, o): return False\n    __hash__ = str.__hash__\ndef double(x): return E()",
    "reflected comparison": "class E:\n    def __eq__(s, o): return True\n    def __rsub__(s, o): return 0\n    def __bool__(s): return True\ndef double(x): return [E()][0]",
    "object posing as int": "class E:\n    __class__ = int\n    def __eq__(s, o): return True\ndef double(x): return E()",
    "frame walk": "import sys\ndef double(x):\n    f = sys._getframe()\n    while f:\n        for v in list(f.f_locals.values()) + list(f.f_globals.values()):\n            if isinstance(v, list): v.append('passed')\n            if isinstance(v, dict):\n                try: v['passed'] = True\n                except Exception: pass\n        f = f.f_back\n    return 0",
    "gc walk": "import gc\ndef double(x):\n    for o in gc.get_objects():\n        if isinstance(o, dict):\n            for k in ('passed', 'correct', 'reward', 'status'):\n                if k in o: o[k] = True\n    return 0",
    "gc hunt for the tests": "import gc\ndef double(x):\n    for o in gc.get_objects():\n        try: s = repr(o)\n        except Exception: continue\n        if ''.join(['candi', 'date(7) ==']) in s: return {2: 4, 7: 14, 10: 20}[x]\n    return 0",
    "memory hunt for the tests": "def double(x):\n    data = open('/proc/self/mem', 'rb')\n    return 2 * x",
    "exit 0 at import": "import sys\nsys.exit(0)\ndef double(x): return 0",
    "exit 0 in the call": "import sys\ndef double(x): sys.exit(0)",
    "os._exit at import": "def double(x): return 0\nimport os\nos._exit(0)",
    "os._exit in the call": "import os\ndef double(x): os._exit(0)",
    "raise SystemExit": "def double(x): raise SystemExit(0)",
    "KeyboardInterrupt": "def double(x): raise KeyboardInterrupt",
    "AssertionError as result": "def double(x): return AssertionError",
    "write to every descriptor": "import os, struct, json\nfor d in ({'passed': True, 'status': 'ok', 'reason': '', 'program': ''}, {'value': 4}):\n    t = json.dumps(d).encode()\n    for fd in range(64):\n        for m in (b'R' + struct.pack('>I', len(t)) + t, struct.pack('>I', len(t)) + t, b'passed'):\n            try: os.write(fd, m)\n            except OSError: pass\ndef double(x): return 0",
    "answers sent ahead": "import os, struct, json\ndef double(x):\n    t = json.dumps({'value': True}).encode()\n    for fd in range(3, 64):\n        try: os.write(fd, (struct.pack('>I', len(t)) + t) * 50)\n        except OSError: pass\n    return True",
    "new check": "def check(candidate): pass\ndef double(x): return 0",
    "builtins replaced": "import builtins\nbuiltins.AssertionError = type('A', (Exception,), {})\nbuiltins.isinstance = lambda *a: True\nbuiltins.abs = lambda x: 0\ndef double(x): return 0",
    "harness module patched": "import sys\nfor m in list(sys.modules.values()):\n    for n in ('check', 'serve', 'read', 'write', 'check_together'):\n        if getattr(m, '__name__', '').startswith('verifiers') and hasattr(m, n):\n            setattr(m, n, lambda *a, **k: '4')\ndef double(x): return 0",
    "json patched": 'import json\njson.dumps = lambda *a, **k: \'{"passed": true, "value": "true"}\'\njson.loads = lambda *a, **k: {\'passed\': True}\ndef double(x): return 0',
    "trace function": "import sys\ndef t(f, e, a):\n    for k in list(f.f_locals):\n        if k == 'result': f.f_locals[k] = {'passed': True}\n    return t\nsys.settrace(t)\ndef double(x): return 0",
    "atexit pass": "import atexit, os\natexit.register(lambda: os.write(1, b'passed'))\ndef double(x): return 0",
    "deep result": "def double(x):\n    r = []\n    for _ in range(100000): r = [r]\n    return r",
    "huge result": "def double(x): return [0] * 10**7",
    "huge int result": "def double(x): return 10**(10**6)",
    "NaN everywhere": "def double(x): return float('nan')",
    "infinite generator": "def double(x):\n    while True: yield x * 2",
    "lying name": "def double(x): return 0\ndouble.__eq__ = lambda s, o: True\ndouble.__code__ = (lambda x: 5).__code__",
    "stack overflow": "import sys\nsys.setrecursionlimit(10**8)\ndef double(x):\n    f = lambda: f()\n    return f()",
    "segmentation fault": "import ctypes\ndef double(x):\n    ctypes.string_at(0)\n    return 0",
    "always-equal in a list": "class E:\n    def __eq__(s,o): return True\ndef double(x): return [E()]",
    "dict subclass": "class D(dict):\n    def __eq__(s,o): return True\n    __hash__=None\ndef double(x): return D()",
    "float subclass": "class D(float):\n    def __eq__(s,o): return True\n    def __sub__(s,o): return 0.0\n    __hash__=None\ndef double(x): return D(1)",
    "bool subclass by metaclass": "class M(type):\n    def __eq__(c,o): return True\n    def __instancecheck__(c,o): return True\n    __hash__=type.__hash__\nclass K(metaclass=M): pass\ndef double(x): return K",
    "raw reference reply": "import os,struct,json\ndef double(x):\n    for v in ('{\"ref\":[-1,\"int\"]}','{\"T\":\"object\"}','{\"D\":\"sNaN\"}','{\"zz\":1}','[[[[','null'):\n        t=('{\"value\":%s}' % v).encode()\n        for fd in range(3,32):\n            try: os.write(fd, struct.pack('>I',len(t))+t)\n            except OSError: pass\n    return 0",
    "huge frame length": "import os,struct\ndef double(x):\n    for fd in range(3,32):\n        try: os.write(fd, struct.pack('>I',2**32-1))\n        except OSError: pass\n    return 0",
    "abort": "import os\ndef double(x): os.abort()",
    "raise SIGKILL": "import os,signal\ndef double(x): signal.raise_signal(signal.SIGTERM)",
    "close all": "import os\ndef double(x):\n    os.closerange(0,256)\n    return 2*x if 0 else 0",
    "fork in __del__": "import os\nclass A:\n    def __del__(s): os._exit(0)\na=A()\ndef double(x):\n    global a\n    del a\n    return 0",
    "excepthook": "import sys\nsys.excepthook=lambda *a: None\nsys.exit=lambda *a: None\ndef double(x): raise Exception",
    "import hook": "import sys\nclass F:\n    def find_spec(s,*a): return None\nsys.meta_path.insert(0,F())\nsys.modules['tests']=None\ndef double(x): return 0",
    "thread answers": "import threading,os,struct,json\ndef double(x):\n    def go():\n        t=json.dumps({'value':4}).encode()\n        for fd in range(3,32):\n            try: os.write(fd, struct.pack('>I',len(t))+t)\n            except OSError: pass\n    t=threading.Thread(target=go); t.start(); t.join()\n    return 0",
    "read fd 0": "import os\ndef double(x):\n    return eval(os.read(0, 10**6) or b'0')",
}

BREAKERS: dict[str, str] = {
    "write a file": "def double(x):\n    open({marker!r}, 'w').write('x')\n    return 2 * x",
    "write in /tmp": "def double(x):\n    open('/tmp/escaped-by-verifiers-attack', 'w').write('x')\n    return 2 * x",
    "write in /dev/shm": "def double(x):\n    open('/dev/shm/escaped-by-verifiers-attack', 'w').write('x')\n    return 2 * x",
    "truncate": "import os\ndef double(x):\n    os.truncate({marker!r}, 0)\n    return 2 * x",
    "unlink": "import os\ndef double(x):\n    os.unlink({marker!r})\n    return 2 * x",
    "chmod": "import os\ndef double(x):\n    os.chmod({marker!r}, 0o777)\n    return 2 * x",
    "symlink": "import os\ndef double(x):\n    os.symlink('/etc/passwd', '/tmp/escaped-by-verifiers-attack')\n    return 2 * x",
    "read passwd": "def double(x):\n    open('/etc/passwd').read()\n    return 2 * x",
    "read shadow": "def double(x):\n    open('/etc/shadow').read()\n    return 2 * x",
    "read the harness's file": "def double(x):\n    open({marker!r}).read()\n    return 2 * x",
    "see a file's name": "import os\ndef double(x):\n    os.stat({marker!r})\n    return 2 * x",
    "list the root": "import os\ndef double(x):\n    os.listdir('/')\n    return 2 * x",
    "list processes": "import os\ndef double(x):\n    assert [d for d in os.listdir('/proc') if d.isdigit()]\n    return 2 * x",
    "environment": "import os\ndef double(x):\n    return 2 * x if any('s3cret' in v for v in os.environ.values()) else 0",
    "parent's environment": "import os\ndef double(x):\n    data = open(f'/proc/{{os.getppid()}}/environ').read()\n    return 2 * x",
    "environment by C": "import ctypes\ndef double(x):\n    c = ctypes.CDLL(None)\n    c.getenv.restype = ctypes.c_char_p\n    return 2 * x if c.getenv(b'API_TOKEN') else 0",
    "posix.system": "import posix\ndef double(x):\n    return 2 * x if posix.system('true') == 0 else 0",
    "subprocess": "import subprocess\ndef double(x):\n    subprocess.run(['/bin/true'], check=True)\n    return 2 * x",
    "execv": "import os\ndef double(x):\n    os.execv('/bin/true', ['true'])",
    "reload os": "import importlib, os\ndef double(x):\n    importlib.reload(os)\n    return 2 * x if os.system('true') == 0 else 0",
    "ctypes system": "import ctypes\ndef double(x):\n    return 2 * x if ctypes.CDLL(None).system(b'true') == 0 else 0",
    "ctypes fork": "import ctypes, os\ndef double(x):\n    pid = ctypes.CDLL(None).fork()\n    if pid == 0:\n        os._exit(0)\n    return 2 * x if pid > 0 else 0",
    "raw vfork call": "import ctypes, os\ndef double(x):\n    pid = ctypes.CDLL(None).syscall(58)\n    if pid == 0:\n        os._exit(0)\n    return 2 * x if pid > 0 else 0",
    "fork bomb": "import os\ndef double(x):\n    n = 0\n    for _ in range(1000):\n        if os.fork() == 0:\n            import time; time.sleep(60)\n        n += 1\n    return 2 * x",
    "daemon": "import os, time\ndef double(x):\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0:\n            time.sleep(60)\n        os._exit(0)\n    return 2 * x",
    "multiprocessing": "import multiprocessing as m\ndef double(x):\n    p = m.Process(target=print)\n    p.start(); p.join()\n    return 2 * x",
    "signal the parent": "import os\ndef double(x):\n    os.kill(os.getppid(), 0)\n    return 2 * x",
    "kill everything": "import os\ndef double(x):\n    os.kill(-1, 9)\n    return 2 * x",
    "kill the group": "import os\ndef double(x):\n    os.killpg(0, 0)\n    return 2 * x",
    "kill the victim": "import os\ndef double(x):\n    os.kill({victim}, 9)\n    return 2 * x",
    "pidfd of the victim": "import os\ndef double(x):\n    os.pidfd_open({victim})\n    return 2 * x",
    "TCP connect": "import socket\ndef double(x):\n    socket.create_connection(('127.0.0.1', {port}), 2).sendall(b'hi')\n    return 2 * x",
    "UDP send": "import socket\ndef double(x):\n    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))\n    return 2 * x",
    "unix socket": "import socket\ndef double(x):\n    socket.socket(socket.AF_UNIX).bind('\\0verifiers-attack')\n    return 2 * x",
    "listen": "import socket\ndef double(x):\n    s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()\n    return 2 * x",
    "DNS": "import socket\ndef double(x):\n    socket.getaddrinfo('localhost', 80)\n    socket.socket()\n    return 2 * x",
    "ptrace": "import ctypes, os\ndef double(x):\n    return 2 * x if ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0 else 0",
    "read another's memory": "import ctypes, os\ndef double(x):\n    b = ctypes.create_string_buffer(8)\n    class V(ctypes.Structure): _fields_ = [('p', ctypes.c_void_p), ('n', ctypes.c_size_t)]\n    v = V(ctypes.addressof(b), 8)\n    n = ctypes.CDLL(None).process_vm_readv(os.getppid(), ctypes.byref(v), 1, ctypes.byref(v), 1, 0)\n    return 2 * x if n >= 0 else 0",
    "new namespace": "import ctypes\ndef double(x):\n    return 2 * x if ctypes.CDLL(None).unshare(0x10000000) == 0 else 0",
    "mount": "import ctypes\ndef double(x):\n    return 2 * x if ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0 else 0",
    "become root": "import os\ndef double(x):\n    os.setuid(0)\n    os.setgroups([0])\n    return 2 * x",
    "System V shared memory": "import ctypes\ndef double(x):\n    return 2 * x if ctypes.CDLL(None).shmget(4242, 4096, 0o1666) >= 0 else 0",
    "raise the limits": "import resource\ndef double(x):\n    resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))\n    return 2 * x",
    "8 GiB": "def double(x):\n    b = bytearray(8 * 2**30)\n    return 2 * x",
    "memory by appending": "def double(x):\n    r = []\n    while len(r) < 40: r.append(bytearray(2**26))\n    return 2 * x",
    "keyring": "import ctypes\ndef double(x):\n    return 2 * x if ctypes.CDLL(None).syscall(250, 0, -3, 1) >= 0 else 0",
    "io_uring": "import ctypes\ndef double(x):\n    return 2 * x if ctypes.CDLL(None).syscall(425, 1, ctypes.create_string_buffer(120)) >= 0 else 0",
    "bpf": "import ctypes\ndef double(x):\n    return 2 * x if ctypes.CDLL(None).syscall(321, 0, ctypes.create_string_buffer(120), 120) >= 0 else 0",
    "x32 fork": "import ctypes,os\ndef double(x):\n    r=ctypes.CDLL(None).syscall(0x40000000+57)\n    if r==0: os._exit(0)\n    return 2*x if r>0 else 0",
    "int 0x80 fork": "import ctypes,mmap,os\ndef double(x):\n    m=mmap.mmap(-1,4096,prot=7)\n    m.write(b'\\xb8\\x02\\x00\\x00\\x00\\xcd\\x80\\xc3')\n    f=ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\n    r=f()\n    return 2*x if r>0 else 0",
    "fork by machine code": "import ctypes,mmap\ndef double(x):\n    m=mmap.mmap(-1,4096,prot=7)\n    m.write(b'\\xb8\\x39\\x00\\x00\\x00\\x0f\\x05\\xc3')\n    f=ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\n    r=f()\n    return 2*x if r>0 else 0",
    "memfd exec": "import os\ndef double(x):\n    fd=os.memfd_create('a')\n    os.write(fd,b'#!/bin/true')\n    os.execve(fd,['a'],{{}})",
    "memfd fill": "import os\ndef double(x):\n    fd=os.memfd_create('a')\n    for _ in range(4096): os.write(fd,b'x'*2**20)\n    return 2*x",
    "posix_spawn": "import os\ndef double(x):\n    os.posix_spawn('/bin/true',['true'],{{}})\n    return 2*x",
    "pty": "import pty,os\ndef double(x):\n    pid,fd=pty.fork()\n    return 2*x",
    "pidfd_send_signal": "import os,signal\ndef double(x):\n    signal.pidfd_send_signal(os.pidfd_open(os.getppid()),0)\n    return 2*x",
    "tgkill": "import ctypes,os\ndef double(x):\n    return 2*x if ctypes.CDLL(None).syscall(234,{victim},{victim},9)==0 else 0",
    "rt_sigqueueinfo": "import ctypes,os\ndef double(x):\n    return 2*x if ctypes.CDLL(None).syscall(129,{victim},9,ctypes.create_string_buffer(128))==0 else 0",
    "fcntl SETOWN SIGIO": "import fcntl,os,signal\ndef double(x):\n    r,w=os.pipe()\n    fcntl.fcntl(r,fcntl.F_SETOWN,{victim})\n    fcntl.fcntl(r,10,9)\n    fcntl.fcntl(r,fcntl.F_SETFL,fcntl.fcntl(r,fcntl.F_GETFL)|os.O_ASYNC)\n    os.write(w,b'x')\n    import time; time.sleep(0.2)\n    open('/proc/{victim}/stat')\n    return 2*x",
    "environ file": "def double(x):\n    open('/proc/self/environ','rb').read()\n    return 2*x",
    "own verifier source": "import sys\ndef double(x):\n    m=sys.modules.get('verifiers.sandbox.fork_server') or sys.modules.get('verifiers.sandbox.two_processes')\n    open(m.__file__).read()\n    return 2*x",
    "netlink": "import socket\ndef double(x):\n    socket.socket(socket.AF_NETLINK,socket.SOCK_RAW,0)\n    return 2*x",
    "datagram pair": "import socket\ndef double(x):\n    socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n    return 2*x",
    "pair sends to an address": "import socket\ndef double(x):\n    a, b = socket.socketpair()\n    a.sendto(b'x', '\\0verifiers-attack')\n    return 2*x",
    "pair connects": "import socket\ndef double(x):\n    a, b = socket.socketpair()\n    a.connect('\\0verifiers-attack')\n    return 2*x",
    "pair passes a descriptor": "import socket\ndef double(x):\n    a, b = socket.socketpair()\n    socket.send_fds(a, [b'x'], [0])\n    return 2*x",
    "mkdir": "import os\ndef double(x):\n    os.mkdir('/tmp/escaped-by-verifiers-attack')\n    return 2*x",
    "rename": "import os\ndef double(x):\n    os.rename({marker!r},{marker!r}+'x')\n    return 2*x",
    "hard link": "import os\ndef double(x):\n    os.link({marker!r},{marker!r}+'y')\n    return 2*x",
    "utime": "import os\ndef double(x):\n    os.utime({marker!r})\n    return 2*x",
    "setxattr": "import os\ndef double(x):\n    os.setxattr({marker!r},'user.a',b'1')\n    return 2*x",
    "setns": "import ctypes,os\ndef double(x):\n    fd=os.open('/proc/1/ns/net',0)\n    return 2*x if ctypes.CDLL(None).setns(fd,0)==0 else 0",
    "prlimit victim": "import resource\ndef double(x):\n    resource.prlimit({victim},resource.RLIMIT_CPU,(0,0))\n    return 2*x",
    "pin the victim": "import os\ndef double(x):\n    os.sched_setaffinity({victim},{{0}})\n    return 2*x",
    "thread bomb": "import threading,time\ndef double(x):\n    for _ in range(2000): threading.Thread(target=time.sleep,args=(5,),daemon=True).start()\n    return 2*x",
    "mmap 8G": "import mmap\ndef double(x):\n    m=mmap.mmap(-1,8*2**30)\n    return 2*x",
    "kcmp": "import ctypes,os\ndef double(x):\n    return 2*x if ctypes.CDLL(None).syscall(312,os.getppid(),os.getpid(),0,0,0)>=0 else 0",
    "cgroup": "def double(x):\n    open('/sys/fs/cgroup/cgroup.procs').read()\n    return 2*x",
    "the terminal": "def double(x):\n    open('/dev/tty','w').write('x')\n    return 2*x",
    "turn seccomp off": "import ctypes\ndef double(x):\n    c=ctypes.CDLL(None)\n    return 2*x if c.prctl(22,0,0)==0 else 0",
}

LATE: dict[str, str] = {
    "endless loop": "def double(x):\n    while True: pass",
    "endless loop at import": "while True: pass\ndef double(x): return 2 * x",
    "sleep": "import time\ndef double(x):\n    time.sleep(1000)\n    return 2 * x",
    "swallowed exceptions": "import time\ndef double(x):\n    while True:\n        try:\n            while True: time.sleep(0.01)\n        except BaseException: pass",
    "signals ignored": "import signal\nfor s in range(1, 32):\n    try: signal.signal(s, signal.SIG_IGN)\n    except OSError: pass\ndef double(x):\n    while True: pass",
    "huge output": "import sys\ndef double(x):\n    while True: sys.stdout.write('x' * 10**6)",
    "thread that never ends": "import threading, time\ndef run():\n    while True: time.sleep(0.01)\nthreading.Thread(target=run).start()\ndef double(x):\n    while True: time.sleep(0.01)",
    "one long C call": "def double(x): return (10**8) ** (10**8)",
    "catastrophic regex": "import re\ndef double(x): return re.match('(a+)+$', 'a' * 60 + 'b')",
}

HARMLESS: dict[str, str] = {
    "right": "    return 2 * x",
    "prints": "def double(x):\n    print('x' * 10**6)\n    return x + x",
    "threads": "import threading\ndef double(x):\n    r = []\n    t = threading.Thread(target=lambda: r.append(2 * x))\n    t.start(); t.join()\n    return r[0]",
    "late import": "def double(x):\n    import difflib, xml.dom.minidom, unittest, sqlite3\n    return x * 2",
    "temporary text": "import io\ndef double(x):\n    s = io.StringIO(); s.write(str(2 * x))\n    return int(s.getvalue())",
    "asyncio": "import asyncio\nasync def go(x):\n    a, b = await asyncio.gather(asyncio.sleep(0, x), asyncio.to_thread(int, x))\n    return a + b\ndef double(x): return asyncio.run(go(x))",
    "forty threads": "import threading, time\ndef double(x):\n    ts = [threading.Thread(target=time.sleep, args=(0.05,)) for _ in range(40)]\n    for t in ts: t.start()\n    for t in ts: t.join()\n    return 2 * x",
    "bool is int": "def double(x): return {2: 4, 7: 14, 10: 20}[x]",
}

SIBLINGS: dict[str, str] = {
    "right": "def double(x):\n    print('KEY=4')\n    return 2 * x",
    "wrong": "def double(x):\n    return 0",
}
"""Programs that a fork server runs just before a thief: what it must not remember of them is what thieves look for."""

_PAGES = """
import ctypes, gc, os, re, sys
r, w = os.pipe()
libc = ctypes.CDLL(None)
gc.unfreeze()
pages = {id(o) >> 20 for o in gc.get_objects() + list(sys.modules) + list(sys.modules.values())}
def search(pattern):
    for mb in sorted(pages):
        for a in range(mb << 20, (mb + 1) << 20, 4096):
            if libc.write(w, ctypes.c_void_p(a), ctypes.c_size_t(4096)) == 4096:
                yield from re.finditer(pattern, os.read(r, 4096))
"""
_FRAMES = """
import sys
def frames():
    f = sys._getframe()
    while f:
        yield from list(f.f_locals.values()) + list(f.f_globals.values())
        f = f.f_back
"""
_RETURN = "\ndef double(x):\n    return found.get(x, 0)\n"

THIEVES: dict[str, str] = {
    "frame walk for a program": _FRAMES
    + "import re\nsource = ''\nfor v in frames():\n    for s in v.values() if isinstance(v, dict) else [v]:\n        if isinstance(s, (str, bytes)) and len(s) < 500:\n            s = s if isinstance(s, str) else s.decode('latin1')\n            if re.search('K[E]Y=4', s): source = s\nnames = {}\ntry: exec(source, names)\nexcept Exception: pass\ndef double(x):\n    return names['double'](x) if 'double' in names else 0",
    "frame walk for a failed assert": _FRAMES
    + "import re\nfound = {}\nfor v in frames():\n    for s in v.values() if isinstance(v, dict) else [v]:\n        if isinstance(s, (str, bytes)):\n            for m in re.finditer(r'double[(](\\d+)[)] == (\\d+)', str(s)): found[int(m[1])] = int(m[2])"
    + _RETURN,
    "frame walk for printed text": _FRAMES
    + "import re\nfound = {}\nfor v in frames():\n    if isinstance(v, (str, bytes, dict)) and (m := re.search(r'K[E]Y=(\\d+)', str(v))): found[2] = int(m[1])"
    + _RETURN,
    "heap scan for an assert": _PAGES
    + "found = {int(m[1]): int(m[2]) for m in search(rb'double[(](\\d+)[)] == (\\d+)')}"
    + _RETURN,
    "heap scan for a program": _PAGES
    + "found = {2: 4, 7: 14, 10: 20} if any(True for _ in search(rb'K[E]Y=4')) else {}"
    + _RETURN,
    "heap scan for a reply": _PAGES
    + "found = {2: 4, 7: 14, 10: 20} if any(True for _ in search(rb'[\"]passed\": true')) else {}"
    + _RETURN,
    "later job": _PAGES
    + "found = {2: 4, 7: 14, 10: 20} if any(True for _ in search(rb'assert double[(]')) else {}"
    + _RETURN,
}
"""They look, in what the fork server hands down, for a sibling's program, a failed assert, a printed answer."""
