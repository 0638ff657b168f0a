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
    "write to every descriptor": "import os, struct, json\nfor d in ({'passed': True, 'status': 'ok', 'reason': '', 'program': ''}, {'value': '4'}):\n    t = json.dumps(d).encode()\n    for fd in range(64):\n        for m in (b'R' + struct.pack('>I', len(t)) + t, struct.pack('>I', len(t)) + t, b'passed'):\n            try: os.write(fd, m)\n            except OSError: pass\ndef double(x): return 0",
    "answers sent ahead": "import os, struct, json\ndef double(x):\n    t = json.dumps({'value': 'true'}).encode()\n    for fd in range(3, 64):\n        try: os.write(fd, (struct.pack('>I', len(t)) + t) * 50)\n        except OSError: pass\n    return True",
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
    "bool is int": "def double(x): return {2: 4, 7: 14, 10: 20}[x]",
}
