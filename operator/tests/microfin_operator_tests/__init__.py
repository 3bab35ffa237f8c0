"""Tests of the operator. They are a package because pytest names a test module after its folders,
and `operator` is a name of the standard library.
"""
