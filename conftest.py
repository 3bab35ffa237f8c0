"""The fixtures that all tests share: the quick tier's, and real platforms."""

pytest_plugins = ["quick.tier", "support.platforms"]
