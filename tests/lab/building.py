"""Compiled modules of the tests' own, which use the package's compiled ones from C."""

import importlib.util
import sys
from pathlib import Path

import pytest
from Cython.Build import cythonize
from setuptools import Distribution, Extension

ROOT = Path(__file__).parents[2]


def build(source, folder):
    """The module of a `.pyx` file, built in a folder. CFLAGS decides on a sanitizer, as switches do
    for the package's own modules (Makefile); the compiler is to run without its library.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LD_PRELOAD", raising=False)
        patch.chdir(folder)
        extension = Extension(source.stem, [str(source)])
        built = cythonize([extension], build_dir=str(folder), include_path=[str(ROOT)], quiet=True)
        command = Distribution({"ext_modules": built}).get_command_obj("build_ext")
        command.build_lib = command.build_temp = str(folder)
        command.ensure_finalized()
        command.run()
        path = folder / command.get_ext_filename(source.stem)
    spec = importlib.util.spec_from_file_location(source.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[source.stem] = module
    spec.loader.exec_module(module)
    return module
