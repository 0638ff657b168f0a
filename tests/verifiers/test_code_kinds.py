"""Kinds of programs and tests, each with the verdict that plain Python gives."""

from __future__ import annotations

# ruff: noqa: E501  (programs and tests are quoted as they are)
import json
from typing import Any

import pytest

from harness.core import Problem
from verifiers.code_tests import CodeTests, Graded

Case = tuple[dict[str, Any], str]

RIGHT: dict[str, Case] = {
    "int type": (
        {"test_list": ["assert f(['1'])==['1']", "assert f(['1'],int)==[1]"]},
        "def f(xs,g=lambda x:x): return [g(x) for x in xs]",
    ),
    "program fn handed to program": (
        {"test_list": ["assert k(1)==2", "assert f(k,3)==4"]},
        "def k(x): return x+1\ndef f(g,x): return g(x)",
    ),
    "program class inst": (
        {"test_list": ["assert total([P(1),P(2)])==3"]},
        "class P:\n    def __init__(s,v): s.v=v\ndef total(xs): return sum(p.v for p in xs)",
    ),
    "sort key by program": ({"test_list": ["assert sorted([3,1,2],key=f)==[3,2,1]"]}, "def f(x): return -x"),
    "predicate on tests side": (
        {"test_list": ["for p,x in [(lambda r:r>1,3)]:\n    assert p(f(x))"]},
        "def f(x): return x",
    ),
    "generator arg": ({"test_list": ["assert f(i for i in range(3))==3"]}, "def f(g): return sum(g)"),
    "ndarray arg": (
        {"test_list": ["assert (f(np.array([1,2]))==np.array([2,4])).all()"], "test_imports": ["import numpy as np"]},
        "def f(a): return 2*a",
    ),
    "ndarray shape": ({"test_list": ["assert f(2).shape==(2,2)"]}, "import numpy as np\ndef f(n): return np.eye(n)"),
    "nd allclose": (
        {"test_list": ["assert np.allclose(f(2),[[1,0],[0,1]])"], "test_imports": ["import numpy as np"]},
        "import numpy as np\ndef f(n): return np.eye(n)",
    ),
    "namedtuple arg from tests": (
        {
            "test_list": ["P=namedtuple('P','a b')\nassert f(P(1,2))==3"],
            "test_imports": ["from collections import namedtuple"],
        },
        "def f(p): return p[0]+p[1]",
    ),
    "stack": (
        {
            "test_list": [
                "s=Stack()\ns.push(1)\nassert not s.is_empty()\nassert s.contains(1)\nassert s.pop()==1\nassert s.is_empty()"
            ]
        },
        "class Stack:\n    def __init__(s): s.x=[]\n    def push(s,v): s.x.append(v)\n    def pop(s): return s.x.pop()\n    def is_empty(s): return not s.x\n    def contains(s,v): return v in s.x",
    ),
    "closure": ({"test_list": ["g=f(3)\nassert g(4)\nassert not g(2)"]}, "def f(n): return lambda x: x>n"),
    "startswith": (
        {"test_list": ["assert f('abc').startswith('a')\nassert f('x').isupper()"]},
        "def f(s): return s.upper() if s=='x' else s",
    ),
    "method value": (
        {"test_list": ["assert f(2).get()==4"]},
        "class R:\n    def __init__(s,v): s.v=v\n    def get(s): return s.v\ndef f(x): return R(2*x)",
    ),
    "attr": ({"test_list": ["assert f(2).v==4"]}, "class R:\n    def __init__(s,v): s.v=v\ndef f(x): return R(2*x)"),
    "matches": (
        {"test_list": ["assert f('ab').group()=='a'", "assert f('ab')"]},
        "import re\ndef f(s): return re.match('a',s)",
    ),
    "values view": (
        {"test_list": ["assert sorted(f().values())==[1] and list(f().values())==[1] and len(f().values())==1"]},
        "def f(): return {2:1}",
    ),
    "values": ({"test_list": ["assert len(f())==1 and list(f())==[1] and 1 in f()"]}, "def f(): return {2:1}.values()"),
    "items": ({"test_list": ["assert f()=={(2,1)} and (2,1) in f()"]}, "def f(): return {2:1}.items()"),
    "odict keys": (
        {"test_list": ["assert list(f())==[2] and len(f())==1"]},
        "from collections import OrderedDict\ndef f(): return OrderedDict({2:1}).keys()",
    ),
    "NamedTuple": (
        {"test_list": ["assert f().a==1 and f()==(1,2) and f()._asdict()=={'a':1,'b':2} and f()._replace(a=5).a==5"]},
        "from typing import NamedTuple\nclass P(NamedTuple):\n    a: int\n    b: int\ndef f(): return P(1,2)",
    ),
    "NamedTuple method": (
        {"test_list": ["assert f().norm()==5"]},
        "from typing import NamedTuple\nclass P(NamedTuple):\n    a: int\n    b: int\n    def norm(self): return self.a+self.b\ndef f(): return P(3,2)",
    ),
    "list of namedtuple": (
        {"test_list": ["assert [p.a for p in f()]==[1,2]"]},
        "from collections import namedtuple\nP=namedtuple('P','a')\ndef f(): return [P(1),P(2)]",
    ),
    "defaultdict missing": (
        {"test_list": ["d=f()\nassert d['zz']==0 and d['a']==1 and d=={'a':1}"]},
        "from collections import defaultdict\ndef f():\n    d=defaultdict(int); d['a']=1\n    return d",
    ),
    "defaultdict type": (
        {"test_list": ["d=f()\nassert d=={'a':[1]}"]},
        "from collections import defaultdict\ndef f():\n    d=defaultdict(list); d['a'].append(1)\n    return d",
    ),
    "Counter": (
        {"test_list": ["assert f('aab').most_common(1)==[('a',2)] and f('aab')['z']==0"]},
        "from collections import Counter\ndef f(s): return Counter(s)",
    ),
    "array eq": (
        {
            "test_list": ["assert f()==array.array('i',[1,2]) and f().tolist()==[1,2] and f()[0]==1"],
            "test_imports": ["import array", "from pathlib import Path"],
        },
        "import array\ndef f(): return array.array('i',[1,2])",
    ),
    "memoryview": ({"test_list": ["assert f()==b'ab' and bytes(f())==b'ab'"]}, "def f(): return memoryview(b'ab')"),
    "path": (
        {
            "test_list": ["assert str(f())=='a/b' and f().name=='b' and f()==Path('a/b')"],
            "test_imports": ["import array", "from pathlib import Path"],
        },
        "from pathlib import Path\ndef f(): return Path('a')/'b'",
    ),
    "purepath": (
        {"test_list": ["assert f().suffix=='.c'"], "test_imports": ["import array", "from pathlib import Path"]},
        "from pathlib import PurePosixPath\ndef f(): return PurePosixPath('a/b.c')",
    ),
    "uuid": (
        {"test_list": ["assert str(f())=='00000000-0000-0000-0000-000000000005'"]},
        "import uuid\ndef f(): return uuid.UUID(int=5)",
    ),
    "IntEnum": (
        {"test_list": ["assert f()==1 and f().name=='RED'"]},
        "import enum\nclass C(enum.IntEnum):\n    RED=1\ndef f(): return C.RED",
    ),
    "Enum": (
        {"test_list": ["assert f().value==1 and f().name=='RED'"]},
        "import enum\nclass C(enum.Enum):\n    RED=1\ndef f(): return C.RED",
    ),
    "UserDict": (
        {"test_list": ["assert f()=={1:2} and f()[1]==2"]},
        "from collections import UserDict\ndef f(): return UserDict({1:2})",
    ),
    "UserList empty": (
        {"test_list": ["assert f()==[]"]},
        "from collections import UserList\ndef f(): return UserList()",
    ),
    "np zero": ({"test_list": ["assert f()==0 and f()+1==1"]}, "import numpy as np\ndef f(): return np.int64(0)"),
    "np bool": ({"test_list": ["assert not f()"]}, "import numpy as np\ndef f(): return np.bool_(False)"),
    "mappingproxy": (
        {"test_list": ["assert f()[1]==2"]},
        "import types\ndef f(): return types.MappingProxyType({1:2})",
    ),
    "dataclass attr": (
        {"test_list": ["assert f().a==1"]},
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    a:int\ndef f(): return P(1)",
    ),
    "iter class": (
        {"test_list": ["assert list(f())==[1,2,3] and len(f())==3 and f()[1]==2"]},
        "class S:\n    def __iter__(s): return iter([1,2,3])\n    def __len__(s): return 3\n    def __getitem__(s,i): return [1,2,3][i]\ndef f(): return S()",
    ),
    "deep tuple 900": (
        {"test_list": ["r=f();n=0\nwhile r: r=r[0];n+=1\nassert n==900"]},
        "def f():\n    r=()\n    for _ in range(900): r=(r,)\n    return r",
    ),
    "deep dict 900": (
        {"test_list": ["r=f();n=0\nwhile r: r=r['a'];n+=1\nassert n==900"]},
        "def f():\n    r={}\n    for _ in range(900): r={'a':r}\n    return r",
    ),
    "deep list 2000": (
        {"test_list": ["r=f();n=0\nwhile r: r=r[0];n+=1\nassert n==2000"]},
        "def f():\n    r=[]\n    for _ in range(2000): r=[r]\n    return r",
    ),
    "deep arg": (
        {"test_list": ["r=[]\nfor _ in range(900): r=[r]\nassert f(r)==900"]},
        "def f(r):\n    n=0\n    while r: r=r[0];n+=1\n    return n",
    ),
    "5M string": ({"test_list": ["assert len(f())==5*2**20"]}, "def f(): return 'a'*(5*2**20)"),
    "1M ints": ({"test_list": ["assert sum(f())==499999500000"]}, "def f(): return list(range(10**6))"),
    "str subclass": (
        {"test_list": ["assert f().shout()=='A!' and f()=='a'"]},
        "class S(str):\n    def shout(s): return s.upper()+'!'\ndef f(): return S('a')",
    ),
    "chain": (
        {"test_list": ["assert f()[1]==2 and dict(f())=={1:2,3:4}"]},
        "from collections import ChainMap\ndef f(): return ChainMap({1:2},{3:4})",
    ),
    "own passed back": (
        {"test_list": ["p=f()\nassert g(p)==3"]},
        "from collections import namedtuple\nP=namedtuple('P','a b')\ndef f(): return P(1,2)\ndef g(p): return p.a+p.b",
    ),
    "own mutated passed back": (
        {"test_list": ["p=f()\np.append(5)\nassert g(p)==8"]},
        "class L(list):\n    def total(s): return sum(s)\ndef f(): return L([1,2])\ndef g(p): return sum(p)",
    ),
    "frozen/sets": ({"test_list": ["assert f()=={1,2}"]}, "def f(): return frozenset([1,2])"),
    "deque": (
        {"test_list": ["assert list(f())==[1,2]"]},
        "from collections import deque\ndef f(): return deque([1,2])",
    ),
    "asyncio executor": (
        {"test_list": ["assert f(2)==4"]},
        "import asyncio\nasync def g(x):\n    loop=asyncio.get_running_loop()\n    return await loop.run_in_executor(None,lambda: 2*x)\ndef f(x): return asyncio.run(g(x))",
    ),
    "asyncio queue/timeouts": (
        {"test_list": ["assert f(2)==4"]},
        "import asyncio\nasync def g(x):\n    q=asyncio.Queue()\n    async def p():\n        for i in range(x): await q.put(2)\n    t=asyncio.create_task(p())\n    s=sum([await asyncio.wait_for(q.get(),1) for _ in range(x)])\n    await t\n    return s\ndef f(x): return asyncio.run(g(x))",
    ),
    "asyncio to_thread": (
        {"test_list": ["assert f(2)==4"]},
        "import asyncio\nasync def g(x): return await asyncio.to_thread(lambda: 2*x)\ndef f(x): return asyncio.run(g(x))",
    ),
    "new loop": (
        {"test_list": ["assert f(2)==4"]},
        "import asyncio\nasync def g(x): return 2*x\ndef f(x):\n    l=asyncio.new_event_loop()\n    try: return l.run_until_complete(g(x))\n    finally: l.close()",
    ),
    "socketpair": (
        {"test_list": ["assert f(2)==4"]},
        "import socket\ndef f(x):\n    a,b=socket.socketpair()\n    a.sendall(b'hi')\n    return 2*x if b.recv(2)==b'hi' else 0",
    ),
    "threadpool": (
        {"test_list": ["assert f(2)==4"]},
        "from concurrent.futures import ThreadPoolExecutor\nimport time\ndef f(x):\n    with ThreadPoolExecutor(60) as p: return sum(p.map(lambda i: (time.sleep(0.05),i)[1],[x,x]))",
    ),
    "100 threads": (
        {"test_list": ["assert f(2)==4"]},
        "import threading, time\ndef f(x):\n    ts=[threading.Thread(target=time.sleep,args=(0.3,)) for _ in range(100)]\n    for q in ts: q.start()\n    for q in ts: q.join()\n    return 2*x",
    ),
    "thread recursion": (
        {"test_list": ["assert f(2)==4"]},
        "import threading\ndef f(x):\n    out=[]\n    def r(n): return 0 if n==0 else 1+max([r(n-1)])\n    q=threading.Thread(target=lambda: out.append(r(900)))\n    q.start(); q.join()\n    return 2*x if out==[900] else 0",
    ),
    "fences helper after": (
        {"test_list": ["assert add(1,2)==3"]},
        "```python\ndef add(a,b):\n    return plus(a,b)\n```\nhelper:\n```python\ndef plus(a,b): return a+b\n```",
    ),
    "fences chain": (
        {"test_list": ["assert add(1,2)==3"]},
        "```python\nimport math\n```\n```python\ndef fl(x): return math.floor(x)\n```\n```python\ndef add(a,b):\n    return fl(a+b)\n```\nUsage\n```python\nprint(add(1,2))\nassert add(1,2)==4\n```",
    ),
    "fences two wanted": (
        {"test_list": ["assert total(P(1,2))==3"]},
        "```python\nclass P:\n    def __init__(s,a,b): s.a=a;s.b=b\n```\n```python\ndef total(p): return p.a+p.b\n```",
    ),
    "fences wrong first version": (
        {"test_list": ["assert add(1,2)==3"]},
        "```python\nK=5\ndef add(a,b): return a-b\n```\nBetter\n```python\ndef add(a,b): return a+b\n```",
    ),
    "fences future": (
        {"test_list": ["assert add(1,2)==3"]},
        "```python\nK=0\n```\n```python\nfrom __future__ import annotations\ndef add(a: X,b): return a+b+K\n```",
    ),
    "annotation constants": (
        {"test_list": ["assert add(1,2)==3"]},
        "```python\nfrom typing import List\n```\n```python\ndef add(a: List[int],b): return a+b\n```",
    ),
    "fence class var": (
        {"test_list": ["assert add(1,2)==3"]},
        "```python\nfrom dataclasses import dataclass\n```\n```python\n@dataclass\nclass P:\n    a: int\n```\n```python\ndef add(a,b): return P(a+b).a\n```",
    ),
    "future own": (
        {"test_list": ["assert f(2)==4"]},
        "from __future__ import annotations\ndef f(x: np.ndarray): return 2*x",
    ),
    "List ok": ({"test_list": ["assert f(2)==4"]}, "from typing import List\ndef f(x: List[int]) -> int: return 2*x"),
    "think ok": (
        {"test_list": ["assert f(2)==4"]},
        "<think>maybe\n```python\ndef f(x): return 0\n```\n</think>\n```python\ndef f(x): return 2*x\n```",
    ),
    "think markers in code": (
        {"test_list": ["assert f('<think>a</think>b')=='b'"]},
        "```python\ndef f(s): return s.split('</think>')[-1]\n```",
    ),
    "table of dicts": (
        {"test_list": ["cases = [{'x': 1, 'ok': lambda r: r > 0}]\nfor c in cases:\n    assert c['ok'](f(c['x']))"]},
        "def f(x): return x",
    ),
    "table of tuples": (
        {"test_list": ["cases = [(1, lambda r: r > 0)]\nfor x, ok in cases:\n    assert ok(f(x))"]},
        "def f(x): return x",
    ),
    "variable with the name of a built-in": (
        {"test_list": ["input = [1, 2]\nmax = 5\nassert f(input, max) == 8"]},
        "def f(x, y): return sum(x) + y",
    ),
    "coroutine": (
        {
            "test_list": [
                "import asyncio\nassert asyncio.run(f(2)) == 4",
                "async def go():\n    return [await f(1), await f(2)]\nassert asyncio.run(go()) == [2, 4]",
            ]
        },
        "import asyncio\nasync def f(x):\n    await asyncio.sleep(0)\n    return 2 * x",
    ),
    "text of an object": (
        {"test_list": ["assert str(f(2)) == 'R(2)' and f'{f(3)!s}' == 'R(3)'"]},
        "class R:\n    def __init__(s,v): s.v=v\n    def __str__(s): return f'R({s.v})'\ndef f(x): return R(x)",
    ),
    "text of a named tuple": (
        {"test_list": ["assert repr(f(2)) == 'P(a=2)' and str(f(2)) == 'P(a=2)'"]},
        "from collections import namedtuple\nP = namedtuple('P', 'a')\ndef f(x): return P(x)",
    ),
    "chain keys": (
        {"test_list": ["assert set(f(1)) == {1, 2} and len(f(1)) == 2"]},
        "from collections import ChainMap\ndef f(x): return ChainMap({1: 2}, {2: 3}).keys()",
    ),
    "numpy random": (
        {"test_list": ["import numpy as np\nx = np.random.randint(10**6)\nassert f(int(x)) == 2 * x"]},
        "def f(x): return 2 * x",
    ),
}
"""Right programs; the tests need no shared process."""

RIGHT_COMPAT: dict[str, Case] = {
    "lambda later": (
        {"test_list": ["assert f([1])==[1]", "assert f([1],lambda x:x+1)==[2]"]},
        "def f(xs,g=lambda x:x): return [g(x) for x in xs]",
    ),
    "def in setup": (
        {"test_list": ["assert f([1])==[1]", "assert f([1],inc)==[2]"], "test_setup_code": "def inc(x): return x+1"},
        "def f(xs,g=lambda x:x): return [g(x) for x in xs]",
    ),
    "builtin fn": (
        {"test_list": ["assert f([1])==[1]", "assert f([-1],abs)==[1]"]},
        "def f(xs,g=lambda x:x): return [g(x) for x in xs]",
    ),
    "operator": (
        {"test_list": ["assert f([1])==[1]", "assert f([-1],operator.neg)==[1]"], "test_imports": ["import operator"]},
        "def f(xs,g=lambda x:x): return [g(x) for x in xs]",
    ),
    "str.upper": (
        {"test_list": ["assert f(['a'])==['a']", "assert f(['a'],str.upper)==['A']"]},
        "def f(xs,g=lambda x:x): return [g(x) for x in xs]",
    ),
    "obj of test class": (
        {
            "test_list": ["assert f(1)==1", "assert f(Box(3))==3"],
            "test_setup_code": "class Box:\n    def __init__(s,v): s.v=v",
        },
        "def f(b): return getattr(b,'v',b)",
    ),
    "obj var": (
        {
            "test_list": ["b=Box(3)\nassert f(1)==1\nassert f(b)==3"],
            "test_setup_code": "class Box:\n    def __init__(s,v): s.v=v",
        },
        "def f(b): return getattr(b,'v',b)",
    ),
    "maker": (
        {
            "test_list": ["assert f(1)==1", "assert f(mk())==3"],
            "test_setup_code": "class Box:\n    def __init__(s,v): s.v=v\ndef mk(): return Box(3)",
        },
        "def f(b): return getattr(b,'v',b)",
    ),
    "decorator": ({"test_list": ["@f\ndef g(x): return x\nassert g(2)==4"]}, "def f(h): return lambda x: 2*h(x)"),
    "decorator late": (
        {"test_list": ["assert k()==1\n@f\ndef g(x): return x\nassert g(2)==4"]},
        "def k(): return 1\ndef f(h): return lambda x: 2*h(x)",
    ),
    "list of lambdas loop": (
        {"test_list": ["for g,x,w in [(lambda a:a,1,1),(lambda a:2*a,2,4)]:\n    assert f(g,x)==w"]},
        "def f(g,x): return g(x)",
    ),
    "kw lambda": (
        {"test_list": ["assert f([3,1],key=lambda x:-x)==[3,1]"]},
        "def f(xs,key): return sorted(xs,key=key)",
    ),
    "stringio": (
        {"test_list": ["assert f(1)==1", "assert f(io.StringIO('a'))=='a'"], "test_imports": ["import io"]},
        "def f(s): return s.read() if hasattr(s,'read') else s",
    ),
    "table hands over": (
        {
            "test_list": [
                "cases = [(lambda r: r + 1, 3, 4)]\nassert f(abs_, 1) == 1 if 0 else True\nfor g, x, want in cases:\n    assert f(g, x) == want"
            ]
        },
        "def f(g, x): return g(x)",
    ),
}
"""Right programs whose tests hand them something of the tests' own, often not in the first call."""

WRONG: dict[str, Case] = {
    "assert 4 in f(2)": (
        {"test_list": ["assert 4 in f(2)"]},
        "class E:\n    def equals(s,o): return True\n    def all(s): return True\n    def any(s): return True\n    def __getattr__(s,n): return lambda *a,**k: True\n    def __eq__(s,o): return True\n    def __len__(s): return 4\n    def __getitem__(s,i): return 4\n    def __iter__(s): return iter([4])\n    def __contains__(s,i): return True\ndef f(x): return E()",
    ),
    "assert f(2)==4": (
        {"test_list": ["assert f(2)==4"]},
        "class E:\n    def equals(s,o): return True\n    def all(s): return True\n    def any(s): return True\n    def __getattr__(s,n): return lambda *a,**k: True\n    def __eq__(s,o): return True\n    def __len__(s): return 4\n    def __getitem__(s,i): return 4\n    def __iter__(s): return iter([4])\n    def __contains__(s,i): return True\ndef f(x): return E()",
    ),
    "assert f(2)": (
        {"test_list": ["assert f(2)"]},
        "class E:\n    def equals(s,o): return True\n    def all(s): return True\n    def any(s): return True\n    def __getattr__(s,n): return lambda *a,**k: True\n    def __eq__(s,o): return True\n    def __len__(s): return 4\n    def __getitem__(s,i): return 4\n    def __iter__(s): return iter([4])\n    def __contains__(s,i): return True\ndef f(x): return E()",
    ),
    "fences wrong last version": (
        {"test_list": ["assert add(1,2)==3"]},
        "```python\ndef add(a,b): return a+b\n```\nBetter\n```python\ndef add(a,b): return a-b\n```",
    ),
    "np annotation": ({"test_list": ["assert f(2)==4"]}, "def f(x: np.ndarray): return 2*x"),
    "think open": ({"test_list": ["assert f(2)==4"]}, "<think>maybe\n```python\ndef f(x): return 2*x\n```"),
    "wrong coroutine": ({"test_list": ["import asyncio\nassert asyncio.run(f(2)) == 4"]}, "async def f(x): return x"),
    '{"T":"__loader__"}': (
        {"test_list": ["assert dbl(dbl(2)) == 8", "assert dbl(7) == 14"]},
        "import sys\ndef dbl(x):\n    f=sys._getframe(); split=True\n    while f:\n        if f.f_code.co_name=='check_together': split=False\n        f=f.f_back\n    if split:\n        sys.modules['verifiers.sandbox.literals'].write=lambda *a,**k: '{\"T\":\"__loader__\"}'\n        return 1\n    class E(int):\n        def __eq__(s,o): return True\n        __hash__=int.__hash__\n    return E(1)",
    ),
    '{"q":[1,{"T":"__loader__"}]}': (
        {"test_list": ["assert dbl(dbl(2)) == 8", "assert dbl(7) == 14"]},
        "import sys\ndef dbl(x):\n    f=sys._getframe(); split=True\n    while f:\n        if f.f_code.co_name=='check_together': split=False\n        f=f.f_back\n    if split:\n        sys.modules['verifiers.sandbox.literals'].write=lambda *a,**k: '{\"q\":[1,{\"T\":\"__loader__\"}]}'\n        return 1\n    class E(int):\n        def __eq__(s,o): return True\n        __hash__=int.__hash__\n    return E(1)",
    ),
    '{"g":[1]}': (
        {"test_list": ["assert dbl(dbl(2)) == 8", "assert dbl(7) == 14"]},
        "import sys\ndef dbl(x):\n    f=sys._getframe(); split=True\n    while f:\n        if f.f_code.co_name=='check_together': split=False\n        f=f.f_back\n    if split:\n        sys.modules['verifiers.sandbox.literals'].write=lambda *a,**k: '{\"g\":[1]}'\n        return 1\n    class E(int):\n        def __eq__(s,o): return True\n        __hash__=int.__hash__\n    return E(1)",
    ),
    '{"mv":"00"}': (
        {"test_list": ["assert dbl(dbl(2)) == 8", "assert dbl(7) == 14"]},
        "import sys\ndef dbl(x):\n    f=sys._getframe(); split=True\n    while f:\n        if f.f_code.co_name=='check_together': split=False\n        f=f.f_back\n    if split:\n        sys.modules['verifiers.sandbox.literals'].write=lambda *a,**k: '{\"mv\":\"00\"}'\n        return 1\n    class E(int):\n        def __eq__(s,o): return True\n        __hash__=int.__hash__\n    return E(1)",
    ),
    '{"nd":["<i8",[1],[1]]}': (
        {"test_list": ["assert dbl(dbl(2)) == 8", "assert dbl(7) == 14"]},
        "import sys\ndef dbl(x):\n    f=sys._getframe(); split=True\n    while f:\n        if f.f_code.co_name=='check_together': split=False\n        f=f.f_back\n    if split:\n        sys.modules['verifiers.sandbox.literals'].write=lambda *a,**k: '{\"nd\":[\"<i8\",[1],[1]]}'\n        return 1\n    class E(int):\n        def __eq__(s,o): return True\n        __hash__=int.__hash__\n    return E(1)",
    ),
    '{"nd":["O",[1],[1]]}': (
        {"test_list": ["assert dbl(dbl(2)) == 8", "assert dbl(7) == 14"]},
        "import sys\ndef dbl(x):\n    f=sys._getframe(); split=True\n    while f:\n        if f.f_code.co_name=='check_together': split=False\n        f=f.f_back\n    if split:\n        sys.modules['verifiers.sandbox.literals'].write=lambda *a,**k: '{\"nd\":[\"O\",[1],[1]]}'\n        return 1\n    class E(int):\n        def __eq__(s,o): return True\n        __hash__=int.__hash__\n    return E(1)",
    ),
    '{"ref":[0,"int"]}': (
        {"test_list": ["assert dbl(dbl(2)) == 8", "assert dbl(7) == 14"]},
        "import sys\ndef dbl(x):\n    f=sys._getframe(); split=True\n    while f:\n        if f.f_code.co_name=='check_together': split=False\n        f=f.f_back\n    if split:\n        sys.modules['verifiers.sandbox.literals'].write=lambda *a,**k: '{\"ref\":[0,\"int\"]}'\n        return 1\n    class E(int):\n        def __eq__(s,o): return True\n        __hash__=int.__hash__\n    return E(1)",
    ),
    '{"own":["int",1,{"ref":[0,"x"]}]}': (
        {"test_list": ["assert dbl(dbl(2)) == 8", "assert dbl(7) == 14"]},
        'import sys\ndef dbl(x):\n    f=sys._getframe(); split=True\n    while f:\n        if f.f_code.co_name==\'check_together\': split=False\n        f=f.f_back\n    if split:\n        sys.modules[\'verifiers.sandbox.literals\'].write=lambda *a,**k: \'{"own":["int",1,{"ref":[0,"x"]}]}\'\n        return 1\n    class E(int):\n        def __eq__(s,o): return True\n        __hash__=int.__hash__\n    return E(1)',
    ),
    '{"own":["object",1,{"ref":[0,"x"]}]}': (
        {"test_list": ["assert dbl(dbl(2)) == 8", "assert dbl(7) == 14"]},
        'import sys\ndef dbl(x):\n    f=sys._getframe(); split=True\n    while f:\n        if f.f_code.co_name==\'check_together\': split=False\n        f=f.f_back\n    if split:\n        sys.modules[\'verifiers.sandbox.literals\'].write=lambda *a,**k: \'{"own":["object",1,{"ref":[0,"x"]}]}\'\n        return 1\n    class E(int):\n        def __eq__(s,o): return True\n        __hash__=int.__hash__\n    return E(1)',
    ),
    '{"own":["dict",{"d":[]},{"ref":[null,"x"]}]}': (
        {"test_list": ["assert dbl(dbl(2)) == 8", "assert dbl(7) == 14"]},
        'import sys\ndef dbl(x):\n    f=sys._getframe(); split=True\n    while f:\n        if f.f_code.co_name==\'check_together\': split=False\n        f=f.f_back\n    if split:\n        sys.modules[\'verifiers.sandbox.literals\'].write=lambda *a,**k: \'{"own":["dict",{"d":[]},{"ref":[null,"x"]}]}\'\n        return 1\n    class E(int):\n        def __eq__(s,o): return True\n        __hash__=int.__hash__\n    return E(1)',
    ),
    '{"mp":[1]}': (
        {"test_list": ["assert dbl(dbl(2)) == 8", "assert dbl(7) == 14"]},
        "import sys\ndef dbl(x):\n    f=sys._getframe(); split=True\n    while f:\n        if f.f_code.co_name=='check_together': split=False\n        f=f.f_back\n    if split:\n        sys.modules['verifiers.sandbox.literals'].write=lambda *a,**k: '{\"mp\":[1]}'\n        return 1\n    class E(int):\n        def __eq__(s,o): return True\n        __hash__=int.__hash__\n    return E(1)",
    ),
    '{"mp":[]}': (
        {"test_list": ["assert dbl(dbl(2)) == 8", "assert dbl(7) == 14"]},
        "import sys\ndef dbl(x):\n    f=sys._getframe(); split=True\n    while f:\n        if f.f_code.co_name=='check_together': split=False\n        f=f.f_back\n    if split:\n        sys.modules['verifiers.sandbox.literals'].write=lambda *a,**k: '{\"mp\":[]}'\n        return 1\n    class E(int):\n        def __eq__(s,o): return True\n        __hash__=int.__hash__\n    return E(1)",
    ),
    '{"cm":[1]}': (
        {"test_list": ["assert dbl(dbl(2)) == 8", "assert dbl(7) == 14"]},
        "import sys\ndef dbl(x):\n    f=sys._getframe(); split=True\n    while f:\n        if f.f_code.co_name=='check_together': split=False\n        f=f.f_back\n    if split:\n        sys.modules['verifiers.sandbox.literals'].write=lambda *a,**k: '{\"cm\":[1]}'\n        return 1\n    class E(int):\n        def __eq__(s,o): return True\n        __hash__=int.__hash__\n    return E(1)",
    ),
    '{"p":["Path","/etc"]}': (
        {"test_list": ["assert dbl(dbl(2)) == 8", "assert dbl(7) == 14"]},
        "import sys\ndef dbl(x):\n    f=sys._getframe(); split=True\n    while f:\n        if f.f_code.co_name=='check_together': split=False\n        f=f.f_back\n    if split:\n        sys.modules['verifiers.sandbox.literals'].write=lambda *a,**k: '{\"p\":[\"Path\",\"/etc\"]}'\n        return 1\n    class E(int):\n        def __eq__(s,o): return True\n        __hash__=int.__hash__\n    return E(1)",
    ),
    '{"u":"zz"}': (
        {"test_list": ["assert dbl(dbl(2)) == 8", "assert dbl(7) == 14"]},
        "import sys\ndef dbl(x):\n    f=sys._getframe(); split=True\n    while f:\n        if f.f_code.co_name=='check_together': split=False\n        f=f.f_back\n    if split:\n        sys.modules['verifiers.sandbox.literals'].write=lambda *a,**k: '{\"u\":\"zz\"}'\n        return 1\n    class E(int):\n        def __eq__(s,o): return True\n        __hash__=int.__hash__\n    return E(1)",
    ),
    '{"dk":[[1]]}': (
        {"test_list": ["assert dbl(dbl(2)) == 8", "assert dbl(7) == 14"]},
        "import sys\ndef dbl(x):\n    f=sys._getframe(); split=True\n    while f:\n        if f.f_code.co_name=='check_together': split=False\n        f=f.f_back\n    if split:\n        sys.modules['verifiers.sandbox.literals'].write=lambda *a,**k: '{\"dk\":[[1]]}'\n        return 1\n    class E(int):\n        def __eq__(s,o): return True\n        __hash__=int.__hash__\n    return E(1)",
    ),
    '{"T":"help"}': (
        {"test_list": ["assert dbl(dbl(2)) == 8", "assert dbl(7) == 14"]},
        "import sys\ndef dbl(x):\n    f=sys._getframe(); split=True\n    while f:\n        if f.f_code.co_name=='check_together': split=False\n        f=f.f_back\n    if split:\n        sys.modules['verifiers.sandbox.literals'].write=lambda *a,**k: '{\"T\":\"help\"}'\n        return 1\n    class E(int):\n        def __eq__(s,o): return True\n        __hash__=int.__hash__\n    return E(1)",
    ),
    '{"T":"exit"}': (
        {"test_list": ["assert dbl(dbl(2)) == 8", "assert dbl(7) == 14"]},
        "import sys\ndef dbl(x):\n    f=sys._getframe(); split=True\n    while f:\n        if f.f_code.co_name=='check_together': split=False\n        f=f.f_back\n    if split:\n        sys.modules['verifiers.sandbox.literals'].write=lambda *a,**k: '{\"T\":\"exit\"}'\n        return 1\n    class E(int):\n        def __eq__(s,o): return True\n        __hash__=int.__hash__\n    return E(1)",
    ),
    '{"D":"sNaN"}': (
        {"test_list": ["assert dbl(dbl(2)) == 8", "assert dbl(7) == 14"]},
        "import sys\ndef dbl(x):\n    f=sys._getframe(); split=True\n    while f:\n        if f.f_code.co_name=='check_together': split=False\n        f=f.f_back\n    if split:\n        sys.modules['verifiers.sandbox.literals'].write=lambda *a,**k: '{\"D\":\"sNaN\"}'\n        return 1\n    class E(int):\n        def __eq__(s,o): return True\n        __hash__=int.__hash__\n    return E(1)",
    ),
    '{"e":0}': (
        {"test_list": ["assert dbl(dbl(2)) == 8", "assert dbl(7) == 14"]},
        "import sys\ndef dbl(x):\n    f=sys._getframe(); split=True\n    while f:\n        if f.f_code.co_name=='check_together': split=False\n        f=f.f_back\n    if split:\n        sys.modules['verifiers.sandbox.literals'].write=lambda *a,**k: '{\"e\":0}'\n        return 1\n    class E(int):\n        def __eq__(s,o): return True\n        __hash__=int.__hash__\n    return E(1)",
    ),
    '{"sl":[1,2,3]}': (
        {"test_list": ["assert dbl(dbl(2)) == 8", "assert dbl(7) == 14"]},
        "import sys\ndef dbl(x):\n    f=sys._getframe(); split=True\n    while f:\n        if f.f_code.co_name=='check_together': split=False\n        f=f.f_back\n    if split:\n        sys.modules['verifiers.sandbox.literals'].write=lambda *a,**k: '{\"sl\":[1,2,3]}'\n        return 1\n    class E(int):\n        def __eq__(s,o): return True\n        __hash__=int.__hash__\n    return E(1)",
    ),
    '{"m":[1,2,3]}': (
        {"test_list": ["assert dbl(dbl(2)) == 8", "assert dbl(7) == 14"]},
        "import sys\ndef dbl(x):\n    f=sys._getframe(); split=True\n    while f:\n        if f.f_code.co_name=='check_together': split=False\n        f=f.f_back\n    if split:\n        sys.modules['verifiers.sandbox.literals'].write=lambda *a,**k: '{\"m\":[1,2,3]}'\n        return 1\n    class E(int):\n        def __eq__(s,o): return True\n        __hash__=int.__hash__\n    return E(1)",
    ),
    '{"ar":["u",[1]]}': (
        {"test_list": ["assert dbl(dbl(2)) == 8", "assert dbl(7) == 14"]},
        "import sys\ndef dbl(x):\n    f=sys._getframe(); split=True\n    while f:\n        if f.f_code.co_name=='check_together': split=False\n        f=f.f_back\n    if split:\n        sys.modules['verifiers.sandbox.literals'].write=lambda *a,**k: '{\"ar\":[\"u\",[1]]}'\n        return 1\n    class E(int):\n        def __eq__(s,o): return True\n        __hash__=int.__hash__\n    return E(1)",
    ),
    '{"ar":["i",["a"]]}': (
        {"test_list": ["assert dbl(dbl(2)) == 8", "assert dbl(7) == 14"]},
        "import sys\ndef dbl(x):\n    f=sys._getframe(); split=True\n    while f:\n        if f.f_code.co_name=='check_together': split=False\n        f=f.f_back\n    if split:\n        sys.modules['verifiers.sandbox.literals'].write=lambda *a,**k: '{\"ar\":[\"i\",[\"a\"]]}'\n        return 1\n    class E(int):\n        def __eq__(s,o): return True\n        __hash__=int.__hash__\n    return E(1)",
    ),
    '{"nd":["<U9999999",[1],["a"]]}': (
        {"test_list": ["assert dbl(dbl(2)) == 8", "assert dbl(7) == 14"]},
        "import sys\ndef dbl(x):\n    f=sys._getframe(); split=True\n    while f:\n        if f.f_code.co_name=='check_together': split=False\n        f=f.f_back\n    if split:\n        sys.modules['verifiers.sandbox.literals'].write=lambda *a,**k: '{\"nd\":[\"<U9999999\",[1],[\"a\"]]}'\n        return 1\n    class E(int):\n        def __eq__(s,o): return True\n        __hash__=int.__hash__\n    return E(1)",
    ),
    '{"td":[1,2,3]}': (
        {"test_list": ["assert dbl(dbl(2)) == 8", "assert dbl(7) == 14"]},
        "import sys\ndef dbl(x):\n    f=sys._getframe(); split=True\n    while f:\n        if f.f_code.co_name=='check_together': split=False\n        f=f.f_back\n    if split:\n        sys.modules['verifiers.sandbox.literals'].write=lambda *a,**k: '{\"td\":[1,2,3]}'\n        return 1\n    class E(int):\n        def __eq__(s,o): return True\n        __hash__=int.__hash__\n    return E(1)",
    ),
    '{"g":[{"T":"__spec__"}]}': (
        {"test_list": ["assert dbl(dbl(2)) == 8", "assert dbl(7) == 14"]},
        "import sys\ndef dbl(x):\n    f=sys._getframe(); split=True\n    while f:\n        if f.f_code.co_name=='check_together': split=False\n        f=f.f_back\n    if split:\n        sys.modules['verifiers.sandbox.literals'].write=lambda *a,**k: '{\"g\":[{\"T\":\"__spec__\"}]}'\n        return 1\n    class E(int):\n        def __eq__(s,o): return True\n        __hash__=int.__hash__\n    return E(1)",
    ),
}
"""Wrong programs, among them replies that no honest side writes."""

UNTOLD: dict[str, Case] = {
    "assert f(2).equals(4)": (
        {"test_list": ["assert f(2).equals(4)"]},
        "class E:\n    def equals(s,o): return True\n    def all(s): return True\n    def any(s): return True\n    def __getattr__(s,n): return lambda *a,**k: True\n    def __eq__(s,o): return True\n    def __len__(s): return 4\n    def __getitem__(s,i): return 4\n    def __iter__(s): return iter([4])\n    def __contains__(s,i): return True\ndef f(x): return E()",
    ),
    "assert f([1]).all()": (
        {"test_list": ["assert f([1]).all()"]},
        "class E:\n    def equals(s,o): return True\n    def all(s): return True\n    def any(s): return True\n    def __getattr__(s,n): return lambda *a,**k: True\n    def __eq__(s,o): return True\n    def __len__(s): return 4\n    def __getitem__(s,i): return 4\n    def __iter__(s): return iter([4])\n    def __contains__(s,i): return True\ndef f(x): return E()",
    ),
    "assert f([1]).any()": (
        {"test_list": ["assert f([1]).any()"]},
        "class E:\n    def equals(s,o): return True\n    def all(s): return True\n    def any(s): return True\n    def __getattr__(s,n): return lambda *a,**k: True\n    def __eq__(s,o): return True\n    def __len__(s): return 4\n    def __getitem__(s,i): return 4\n    def __iter__(s): return iter([4])\n    def __contains__(s,i): return True\ndef f(x): return E()",
    ),
    "assert not not f(2).equals(4)": (
        {"test_list": ["assert not not f(2).equals(4)"]},
        "class E:\n    def equals(s,o): return True\n    def all(s): return True\n    def any(s): return True\n    def __getattr__(s,n): return lambda *a,**k: True\n    def __eq__(s,o): return True\n    def __len__(s): return 4\n    def __getitem__(s,i): return 4\n    def __iter__(s): return iter([4])\n    def __contains__(s,i): return True\ndef f(x): return E()",
    ),
    "r=f(2)\nassert r.equals(4)": (
        {"test_list": ["r=f(2)\nassert r.equals(4)"]},
        "class E:\n    def equals(s,o): return True\n    def all(s): return True\n    def any(s): return True\n    def __getattr__(s,n): return lambda *a,**k: True\n    def __eq__(s,o): return True\n    def __len__(s): return 4\n    def __getitem__(s,i): return 4\n    def __iter__(s): return iter([4])\n    def __contains__(s,i): return True\ndef f(x): return E()",
    ),
    "r=f(2)\nok=r.equals(4)\nassert ok": (
        {"test_list": ["r=f(2)\nok=r.equals(4)\nassert ok"]},
        "class E:\n    def equals(s,o): return True\n    def all(s): return True\n    def any(s): return True\n    def __getattr__(s,n): return lambda *a,**k: True\n    def __eq__(s,o): return True\n    def __len__(s): return 4\n    def __getitem__(s,i): return 4\n    def __iter__(s): return iter([4])\n    def __contains__(s,i): return True\ndef f(x): return E()",
    ),
    "assert f(2).equals(4)==True": (
        {"test_list": ["assert f(2).equals(4)==True"]},
        "class E:\n    def equals(s,o): return True\n    def all(s): return True\n    def any(s): return True\n    def __getattr__(s,n): return lambda *a,**k: True\n    def __eq__(s,o): return True\n    def __len__(s): return 4\n    def __getitem__(s,i): return 4\n    def __iter__(s): return iter([4])\n    def __contains__(s,i): return True\ndef f(x): return E()",
    ),
    "assert f(2).equals(4) is True": (
        {"test_list": ["assert f(2).equals(4) is True"]},
        "class E:\n    def equals(s,o): return True\n    def all(s): return True\n    def any(s): return True\n    def __getattr__(s,n): return lambda *a,**k: True\n    def __eq__(s,o): return True\n    def __len__(s): return 4\n    def __getitem__(s,i): return 4\n    def __iter__(s): return iter([4])\n    def __contains__(s,i): return True\ndef f(x): return E()",
    ),
    "assert all([f(2).equals(4)])": (
        {"test_list": ["assert all([f(2).equals(4)])"]},
        "class E:\n    def equals(s,o): return True\n    def all(s): return True\n    def any(s): return True\n    def __getattr__(s,n): return lambda *a,**k: True\n    def __eq__(s,o): return True\n    def __len__(s): return 4\n    def __getitem__(s,i): return 4\n    def __iter__(s): return iter([4])\n    def __contains__(s,i): return True\ndef f(x): return E()",
    ),
    "if not f(2).equals(4): raise AssertionError": (
        {"test_list": ["if not f(2).equals(4): raise AssertionError"]},
        "class E:\n    def equals(s,o): return True\n    def all(s): return True\n    def any(s): return True\n    def __getattr__(s,n): return lambda *a,**k: True\n    def __eq__(s,o): return True\n    def __len__(s): return 4\n    def __getitem__(s,i): return 4\n    def __iter__(s): return iter([4])\n    def __contains__(s,i): return True\ndef f(x): return E()",
    ),
    "assert bool(f(2).equals(4))": (
        {"test_list": ["assert bool(f(2).equals(4))"]},
        "class E:\n    def equals(s,o): return True\n    def all(s): return True\n    def any(s): return True\n    def __getattr__(s,n): return lambda *a,**k: True\n    def __eq__(s,o): return True\n    def __len__(s): return 4\n    def __getitem__(s,i): return 4\n    def __iter__(s): return iter([4])\n    def __contains__(s,i): return True\ndef f(x): return E()",
    ),
    "assert f(2).equals(4) and f(3).equals(6)": (
        {"test_list": ["assert f(2).equals(4) and f(3).equals(6)"]},
        "class E:\n    def equals(s,o): return True\n    def all(s): return True\n    def any(s): return True\n    def __getattr__(s,n): return lambda *a,**k: True\n    def __eq__(s,o): return True\n    def __len__(s): return 4\n    def __getitem__(s,i): return 4\n    def __iter__(s): return iter([4])\n    def __contains__(s,i): return True\ndef f(x): return E()",
    ),
}
"""Tests that ask the program's own object whether the program is right."""


@pytest.fixture(scope="module")
def graded() -> dict[str, dict[str, Graded]]:
    """Every case, graded in one go."""
    code = CodeTests(time_limit=20)
    tables = {"right": RIGHT, "compat": RIGHT_COMPAT, "wrong": WRONG, "untold": UNTOLD}
    found = {}
    for name, table in tables.items():
        items = [(Problem("", "", json.dumps(answer)), program) for answer, program in table.values()]
        found[name] = dict(zip(table, code.judge_all(items), strict=True))
    return found


def told(table: dict[str, Graded]) -> dict[str, tuple]:
    return {name: (found.verdict.correct, found.verdict.status, found.mode) for name, found in table.items()}


def test_right_programs_pass(graded):
    assert told(graded["right"]) == dict.fromkeys(RIGHT, (True, "ok", "split"))


def test_tests_alone_choose_the_shared_process(graded):
    assert told(graded["compat"]) == dict.fromkeys(RIGHT_COMPAT, (True, "ok", "compat"))


def test_wrong_programs_fail_and_never_reach_the_shared_process(graded):
    unfinished = {"think open": (False, "truncated", "split")}
    assert told(graded["wrong"]) == dict.fromkeys(WRONG, (False, "ok", "split")) | unfinished


def test_a_program_is_not_its_own_judge(graded):
    """Neither right nor wrong: the grader says that it cannot tell."""
    assert told(graded["untold"]) == dict.fromkeys(UNTOLD, (False, "error", "split"))
    assert {found.reason for found in graded["untold"].values()} == {
        "the tests take the word of a method of the program's own object: they need mode compat"
    }


def test_random_tests_cannot_be_foreseen_and_stay_the_same():
    draw = "import random\nseen = [random.randint(1, 10**9) for _ in range(5)]\n"
    test = draw + "for n in seen:\n    assert f(str(n)[::-1]) == str(n), seen"
    problem = Problem("", "", json.dumps({"test_list": [test]}))
    code = CodeTests(remember=0)
    assert code(problem, "def f(s): return s[::-1]").correct
    for seeding in ("", "random.seed(0)\n"):
        replay = f"import random\n{seeding}R = random.Random(0)\ndef f(s): return str(R.randint(1, 10**9))"
        assert not code(problem, replay).correct
        assert not code(problem, replay.replace("(R.", "(random.")).correct
    first, again = (code.judge_response(problem, "def f(s): return s").reason for _ in range(2))
    assert first == again
    assert "[" in first
    other = Problem("", "", json.dumps({"test_list": [test + "\n"]}))
    assert code.judge_response(other, "def f(s): return s").reason != first


def test_a_shortage_of_threads_is_the_graders_and_is_not_remembered():
    problem = Problem("", "", json.dumps({"test_list": ["assert f(2) == 4"]}))
    code, short = CodeTests(workers=1), 'raise RuntimeError("after 3: can\'t start new thread")'
    for program in (f"def f(x): {short}", f"{short}\ndef f(x): return 4"):
        assert code(problem, program).status == "error"
    assert code._known == {}


def test_a_prompt_that_does_not_run_by_itself_does_no_harm():
    prompt = "def g(x: int):\n    return 2 * x\n\ndef f(x: List[int]):\n    'Twice.'\n"
    test = "def check(c):\n    assert c([2]) == [4] and g(2) == 4"
    code = CodeTests()
    problem = Problem("", prompt, json.dumps({"test": test, "entry_point": "f"}))
    body = "    return [2 * v for v in x]"
    assert not code(problem, body).correct  # NameError, as in plain Python
    assert code(problem, f"from typing import List\ndef f(x: List[int]):\n{body}").correct
