"""The command line of the people who run microfin: audit, growth, recovery, migrations."""
