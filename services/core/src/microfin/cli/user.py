"""`microfin user`."""

import re
import sys
import uuid
from typing import Annotated, Final

import typer
from argon2 import PasswordHasher

from microfin.cli.failures import Refused, run
from microfin.cli.output import Json, print_fields, print_json
from microfin.cli.shards import administered_shards
from microfin.settings import ApiSettings

user = typer.Typer(no_args_is_help=True, help="The people who may sign in.")

_EMAIL = re.compile(r"[^\s@]{1,64}@[^\s@]+\.[^\s@]+")
_EMAIL_MOST: Final = 254
_PASSWORD_LEAST: Final = 8
_PASSWORD_MOST: Final = 128


def _user_id(text: str) -> str:
    plain = text.replace("-", "").lower()
    if not re.fullmatch(r"[0-9a-f]{32}", plain, re.ASCII):
        raise typer.BadParameter("32 hexadecimal digits are a user's id.")
    return plain


@user.command()
def create(
    email: Annotated[str, typer.Argument(help="The e-mail address to sign in with.")],
    name: Annotated[str, typer.Option(help="The person's name.")],
    password_stdin: Annotated[
        bool,
        typer.Option("--password-stdin", help="Read the password from stdin instead of asking."),
    ] = False,
    identity: Annotated[
        str | None,
        typer.Option(
            "--id",
            metavar="USER",
            parser=_user_id,
            help="The id of a user who is gone, and whose accounts this person owns.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Create a user, as signing up does. The password is asked for, twice.

    With --id the person becomes the owner of the accounts that this user had: after shard 0 was
    restored from before the person signed up. Make sure who it is first.

    Needs MICROFIN_DATABASES_DIRECT; the password's cost is MICROFIN_ARGON2_….

    \b
    Examples:
      microfin user create ada@example.com --name Ada
      pass show ada | microfin user create ada@example.com --name Ada --password-stdin
      microfin user create ada@example.com --name Ada --id 0190b2c3d4e5f60718293a4b5c6d7e8f
    """
    address, person = email.strip().lower(), name.strip()
    if len(address) > _EMAIL_MOST or not _EMAIL.fullmatch(address):
        raise typer.BadParameter(f"{email} is no e-mail address.")
    if not 1 <= len(person) <= 100 or not person.isprintable():
        raise typer.BadParameter("A name has 1 to 100 printable characters.")
    password = read_password(stdin=password_stdin)
    created = run(
        _create(uuid.UUID(identity) if identity else uuid.uuid4(), address, person, password)
    )
    fields = {"id": created, "email": address, "name": person}
    if json:
        print_json(fields)
    else:
        print_fields(fields)


def read_password(*, stdin: bool) -> str:
    """Return the password that was typed, twice, or came in the first line of stdin."""
    if stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    if not _PASSWORD_LEAST <= len(password) <= _PASSWORD_MOST or "\0" in password:
        raise typer.BadParameter(
            f"A password has {_PASSWORD_LEAST} to {_PASSWORD_MOST} characters."
        )
    return password


def hash_of(password: str, settings: ApiSettings) -> str:
    """Return what is stored of a password, at the settings' cost."""
    return PasswordHasher(
        time_cost=settings.argon2_time,
        memory_cost=settings.argon2_memory,
        parallelism=settings.argon2_parallelism,
    ).hash(password)


async def _create(identity: uuid.UUID, email: str, name: str, password: str) -> str:
    settings = ApiSettings()
    password_hash = hash_of(password, settings)
    async with (
        administered_shards(settings) as pools,
        pools[0].acquire() as connection,
        connection.transaction(),
    ):
        added = await connection.fetchval(
            "INSERT INTO users (id, email, name, password_hash) VALUES ($1, $2, $3, $4)"
            " ON CONFLICT DO NOTHING RETURNING id",
            identity,
            email,
            name,
            password_hash,
        )
    if added is None:
        raise Refused(f"There is a user with the address {email} or the id {identity.hex} already.")
    return identity.hex
