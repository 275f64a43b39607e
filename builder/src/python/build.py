# Builds the wheel of a source distribution as PEP 517 says, into /build/out. What it needs lies in the root.
import importlib
import os
import sys
import tarfile
import zipfile

try:
    import tomllib
except ImportError:
    # Before Python 3.11 whatever brings a TOML reader along does.
    try:
        import tomli as tomllib
    except ImportError:
        from setuptools._vendor import tomli as tomllib

archive = sys.argv[1]
top, out = "/build/source", "/build/out"
os.makedirs(top)
os.makedirs(out)
if archive.endswith(".zip"):
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(top)
else:
    with tarfile.open(archive) as opened:
        opened.extractall(top)
inside = os.listdir(top)
if len(inside) == 1 and os.path.isdir(os.path.join(top, inside[0])):
    top = os.path.join(top, inside[0])
# Files of a wheel have the times of what they were made from.
for directory, _, files in os.walk(top):
    for name in files:
        os.utime(os.path.join(directory, name), (315619200, 315619200), follow_symlinks=False)
os.chdir(top)

system = {}
if os.path.exists("pyproject.toml"):
    with open("pyproject.toml", "rb") as file:
        system = tomllib.load(file).get("build-system", {})
for path in reversed(system.get("backend-path", [])):
    sys.path.insert(0, os.path.join(top, path))
name, _, attribute = system.get("build-backend", "setuptools.build_meta:__legacy__").partition(":")
if name == "setuptools.build_meta" and "build-backend" not in system:
    sys.path.insert(0, top)
sys.argv = [sys.argv[0]]
backend = importlib.import_module(name)
for part in filter(None, attribute.split(".")):
    backend = getattr(backend, part)
print("built", backend.build_wheel(out))
