"""The commands of `microfin`, put together."""

import logging

import typer

from microfin.process.logs import configure_logs
from microfin.process.settings import CommonSettings
from microfin_tools.cli.account import account
from microfin_tools.cli.archive import archive
from microfin_tools.cli.audit import audit
from microfin_tools.cli.failures import reported
from microfin_tools.cli.log import log
from microfin_tools.cli.migrate import migrate
from microfin_tools.cli.operation import operation
from microfin_tools.cli.outbox import outbox
from microfin_tools.cli.quarantine import quarantine
from microfin_tools.cli.recover import recover
from microfin_tools.cli.routing import routing
from microfin_tools.cli.topic_grow import topic
from microfin_tools.cli.user import user
from microfin_tools.cli.user_access import disable, enable, set_password, sign_out

HELP = """Administer a microfin ledger.

Settings come from environment variables; NAME_FILE names a file that holds the value instead:

\b
  MICROFIN_DATABASES         PostgreSQL of each shard through the pooler, for reading
  MICROFIN_DATABASES_DIRECT  the same past the pooler with the owner's role, for changes
  MICROFIN_ARCHIVES          the archive of each shard, where old volumes are archived
  MICROFIN_ARCHIVES_DIRECT   the same past the pooler with the owner's role, for archiving
  MICROFIN_KAFKA             host:port of some brokers, separated by commas
  MICROFIN_TOPIC             the commands topic (microfin.commands)

On one machine, `source .local/environment` sets them.

Exit code 0: done. 1: the answer is no. 2: it could not be done.

\b
Start with:
  microfin migrate --partitions 6     make the databases
  microfin audit                      is every cent where it should be?
  microfin routing show               which partitions exist, and what have they decided?
"""

application = typer.Typer(
    name="microfin",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@application.callback(help=HELP)
def configure() -> None:
    """Write logs to stderr, only errors by default: each command reports its own failure."""
    with reported():
        settings = CommonSettings()
        if "log_format" not in settings.model_fields_set:
            settings.log_format = "console"
        quiet = "log_level" not in settings.model_fields_set
        if quiet:
            settings.log_level = "error"
        configure_logs(settings, process="microfin")
        if quiet:
            # aiokafka logs every attempt to connect as an error.
            logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


application.command()(migrate)
application.command()(audit)
application.command()(archive)
application.add_typer(account, name="account")
application.add_typer(operation, name="operation")
application.add_typer(routing, name="routing")
application.add_typer(topic, name="topic")
application.add_typer(quarantine, name="quarantine")
application.add_typer(outbox, name="outbox")
application.add_typer(log, name="log")
application.add_typer(recover, name="recover")
for command in (disable, enable, sign_out, set_password):
    user.command()(command)
application.add_typer(user, name="user")
