"""Layers: a file imports only from floors below its own, and what is pure touches no outside thing."""

import ast
import functools
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import zbackbone

PACKAGE = Path(zbackbone.__file__).parent
FILES = {path.relative_to(PACKAGE).with_suffix("").as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}

# Nothing of these may be asked by what is pure: sockets, disks, secrets, clocks, chance, the machine.
OUTSIDE = {
    "zmq", "sqlite3", "nacl", "socket", "select", "selectors", "ssl", "time", "datetime", "random", "secrets", "uuid",
    "threading", "_thread", "multiprocessing", "concurrent", "asyncio", "signal", "subprocess", "os", "pathlib", "io",
    "tempfile", "shutil", "fcntl", "resource", "ctypes", "logging", "sys", "gc", "weakref", "atexit", "click",
}
# And these builtins reach outside without an import.
REACHING = {"open", "input", "print", "exec", "eval", "__import__", "breakpoint"}

PURE = {
    "errors", "topics", "protocol", "facts", "auth/policy", "auth/registry", "auth/zap", "router/routes",
    "router/inbox", "router/peer", "router/audience", "router/numbering", "router/requests", "router/admin",
    "router/hub", "router/pending", "client/outbox", "client/message", "client/session",
}

# Installed by `pip install zbackbone`, and what these bring along.
CORE = {"zbackbone", "zmq", "msgpack", "nacl", "_sodium", "cffi", "_cffi_backend", "pycparser", "click"}
COMPILED_IN = re.compile(r"_?cython_\w+")       # what Cython's modules register for themselves


def floors():
    """The package's modules from the ground up, as its docstring lists them."""
    rows = re.findall(r"^    ([a-z]+(?:/[a-z_]*)?) +\S", zbackbone.__doc__, re.MULTILINE)
    return {name.removesuffix("/"): number for number, name in enumerate(rows)}


FLOORS = floors()


def floor(name):
    """How high a file stands. A folder's own file, and the files of a folder listed as one, stand where it does."""
    if name in FLOORS:
        return FLOORS[name]
    return FLOORS.get(name.rpartition("/")[0])


@functools.cache
def tree(name):
    return ast.parse(FILES[name].read_text(encoding="utf-8"))


def is_for_types_alone(node, parents):
    while node in parents:
        node = parents[node]
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return True
    return False


@functools.cache
def imports(name):
    """(module, line) of what a file imports, wherever in it; not what only its type hints need."""
    root, found = tree(name), []
    parents = {child: node for node in ast.walk(root) for child in ast.iter_child_nodes(node)}
    folder = ["zbackbone", *name.split("/")[:-1]]
    for node in ast.walk(root):
        if is_for_types_alone(node, parents):
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = folder[:len(folder) - node.level + 1] if node.level else []
            module = [*base, *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                # `from .. import facts` imports a module, `from ..errors import Misuse` a name of one.
                whole = "/".join([*module[1:], alias.name])
                is_ours = module[0] == "zbackbone"
                found.append((".".join([*module, alias.name] if is_ours and whole in FILES else module), node.lineno))
    return found


def ours(module):
    """The floor's name of a module of this package, or None. The package itself has none."""
    return module.removeprefix("zbackbone.").replace(".", "/") if module.startswith("zbackbone.") else None


def test_the_map_names_every_file_and_no_other():
    folders = {"auth", "router", "client"}
    files = {name for name in FILES if not name.endswith("__init__") and name != "__main__"}
    listed_as_one = {name for name in FLOORS if name not in files}
    assert {name for name in listed_as_one if not (PACKAGE / name).is_dir()} == set()
    assert listed_as_one.isdisjoint(folders)
    assert [name for name in sorted(files) if floor(name) is None] == []


@pytest.mark.parametrize("name", [name for name in FILES if name != "__init__"])
def test_a_file_imports_only_from_the_floors_below_its_own(name):
    mine = floor(name)
    for module, line in imports(name):
        other = ours(module)
        if other is None or name.endswith("__init__"):
            continue
        theirs = floor(other)
        is_neighbour = name not in FLOORS and name.rpartition("/")[0] == other.rpartition("/")[0]
        assert theirs is not None or other in ("auth", "router", "client"), f"{name}:{line} imports {module}"
        assert theirs is None or theirs < mine or is_neighbour, f"{name}:{line} imports {module}, a floor above"


def test_the_files_of_a_folder_that_is_one_floor_import_each_other_in_no_circle():
    inside = {name: {ours(module) for module, _ in imports(name)} & set(FILES)
              for name in FILES if name not in FLOORS and "/" in name and not name.endswith("__init__")}
    left = dict(inside)
    while left:
        ground = [name for name, needs in left.items() if not needs & set(left)]
        assert ground, f"a circle among {sorted(left)}"
        for name in ground:
            del left[name]


def test_no_import_hides_at_the_bottom_of_a_file():
    """As they do to break a circle. (One inside a function is seen by the tests above like any other.)"""
    for name in FILES:
        root = tree(name)
        first_code = next((node.lineno for node in root.body
                           if isinstance(node, (ast.FunctionDef, ast.ClassDef))), sys.maxsize)
        late = [node.lineno for node in root.body if isinstance(node, (ast.Import, ast.ImportFrom))
                and node.lineno > first_code]
        assert late == [], f"{name} imports at line {late}, behind its first function"


def test_no_star_is_imported():
    for name in FILES:
        for node in ast.walk(tree(name)):
            assert not (isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)), name


def test_what_is_pure_is_what_the_map_says():
    kept = re.search(r"Kept pure \(no I/O, no clock, no chance\): (.+?)\.\n", zbackbone.__doc__, re.DOTALL)
    said = set()
    ranges = re.findall(r"(\S+) to (\S+?)(?:,|$)", kept[1].replace("\n", " "))
    for first, last in ranges:
        at = [next(floor for name, floor in FLOORS.items() if name.rpartition("/")[2] == end.rpartition("/")[2])
              for end in (first, last)]
        said |= {name for name, floor in FLOORS.items() if at[0] <= floor <= at[1]}
    assert said == PURE


@pytest.mark.parametrize("name", sorted(PURE))
def test_what_is_pure_reaches_for_nothing_outside(name):
    for module, line in imports(name):
        assert module.split(".")[0] not in OUTSIDE, f"{name}:{line} imports {module}"
        other = ours(module)
        assert other is None or other in PURE, f"{name}:{line} imports {module}, which is not pure"
    for node in ast.walk(tree(name)):
        assert not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in REACHING), \
            f"{name}:{node.lineno} calls {node.func.id}"


@pytest.mark.parametrize("name", sorted(PURE))
def test_what_is_pure_says_so_in_its_first_line(name):
    if name in ("errors", "facts"):
        return                               # they have nothing but names
    docstring = ast.get_docstring(tree(name))
    assert "No I/O" in docstring.partition("\n\n")[0].replace("\n", " "), name


def test_every_file_tells_its_idea_in_its_first_line():
    for name in FILES:
        first = (ast.get_docstring(tree(name)) or "").partition("\n")[0]
        assert len(first) > 10 and ": " in first, f"{name}: {first!r}"


#   outside thing              the only files that may import it
ONE_FILE = [
    ("sqlite3",                 {"router/store", "router/server"}),       # the server knows its errors
    ("nacl",                    {"auth/keys"}),
    ("msgpack",                 {"protocol", "facts"}),                  # the wire's bytes, the journal's
    ("fcntl",                   {"router/daemon"}),
]


@pytest.mark.parametrize(("outside", "allowed"), ONE_FILE)
def test_each_outside_thing_has_its_file(outside, allowed):
    using = {name for name in FILES for module, _ in imports(name) if module.split(".")[0] == outside}
    assert using <= allowed


def test_sql_is_in_the_store_alone():
    statement = re.compile(r"\b(SELECT|INSERT( OR \w+)? INTO|UPDATE \w+ SET|DELETE FROM|CREATE TABLE|PRAGMA|BEGIN)\b")
    for name in FILES:
        if name == "router/store":
            continue
        for node in ast.walk(tree(name)):
            assert not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
                        and node.func.attr in ("execute", "executemany", "executescript")), f"{name}:{node.lineno}"
            assert not (isinstance(node, ast.Constant) and isinstance(node.value, str)
                        and statement.search(node.value)), f"{name}:{node.lineno} holds SQL"


# What a plain installation imports

def imported(code):
    """The top-level modules that this code brings into a fresh interpreter, beyond those it starts with."""
    script = ("import sys; before = set(sys.modules)\n" + code +
              "\nimport json; print(json.dumps(sorted({m.split('.')[0] for m in set(sys.modules) - before})))")
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return set(json.loads(ran.stdout))


def strangers(modules):
    return sorted(m for m in modules - set(sys.stdlib_module_names) - CORE if not COMPILED_IN.fullmatch(m))


def test_the_library_imports_nothing_but_the_core_four():
    assert "zbackbone" in imported("import zbackbone")
    assert strangers(imported("import zbackbone")) == []


def test_the_library_needs_neither_the_commands_nor_the_store():
    assert imported("import zbackbone") & {"click", "sqlite3", "pytest", "_pytest"} == set()


@pytest.mark.parametrize("module", ["zbackbone.router.daemon", "zbackbone.cli.hub", "zbackbone.cli.client"])
def test_the_hub_and_the_commands_import_nothing_but_the_core_four(module):
    assert strangers(imported(f"import {module}")) == []


def test_what_is_public_is_there():
    for name in zbackbone.__all__:
        assert getattr(zbackbone, name).__doc__, f"{name} has no word to say for itself"


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith("__main__")])
def test_every_file_can_be_imported(name):
    importlib.import_module("zbackbone." + name.replace("/", ".") if name != "__init__" else "zbackbone")
