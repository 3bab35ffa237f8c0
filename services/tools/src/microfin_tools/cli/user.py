"""`microfin user`."""

import re
import sys
import uuid
from collections.abc import Sequence
from typing import Annotated

import typer
from argon2 import PasswordHasher

from microfin.people.identity import Unfit, read_name, read_new_email, read_new_password
from microfin.process.settings import ApiSettings
from microfin_tools.cli.failures import Refused, run
from microfin_tools.cli.output import Json, print_fields, print_json
from microfin_tools.cli.shards import administered_shards

user = typer.Typer(no_args_is_help=True, help="The people who may sign in.")


def _user_id(text: str) -> str:
    plain = text.replace("-", "").lower()
    if not re.fullmatch(r"[0-9a-f]{32}", plain, re.ASCII):
        raise typer.BadParameter("A user's id has 32 hexadecimal digits.")
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
            help="The id of a lost user, whose accounts this person owns.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Create a user, as signing up does. It asks for the password twice.

    With --id the person becomes the owner of the lost user's accounts. That is for people who
    signed up after the backup from which shard 0 was restored. First make sure who the person is.

    Needs MICROFIN_DATABASES_DIRECT; the password's cost is MICROFIN_ARGON2_….

    \b
    Examples:
      microfin user create ada@example.com --name Ada
      pass show ada | microfin user create ada@example.com --name Ada --password-stdin
      microfin user create ada@example.com --name Ada --id 0190b2c3d4e5f60718293a4b5c6d7e8f
    """
    try:
        forms, person = read_new_email(email), read_name(name)
    except Unfit as error:
        raise typer.BadParameter(str(error)) from None
    password = read_password(stdin=password_stdin)
    created = run(
        _create(uuid.UUID(identity) if identity else uuid.uuid4(), forms, person, password)
    )
    fields = {"id": created, "email": forms[-1], "name": person}
    if json:
        print_json(fields)
    else:
        print_fields(fields)


def read_password(*, stdin: bool) -> str:
    """Return the password if it may be chosen: typed twice, or the first line of stdin."""
    if stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    try:
        return read_new_password(password)
    except Unfit as error:
        raise typer.BadParameter(str(error)) from None


def hash_of(password: str, settings: ApiSettings) -> str:
    """Return the hash to store for a password, at the cost that the settings say."""
    return PasswordHasher(
        time_cost=settings.argon2_time,
        memory_cost=settings.argon2_memory,
        parallelism=settings.argon2_parallelism,
    ).hash(password)


async def _create(identity: uuid.UUID, forms: Sequence[str], name: str, password: str) -> str:
    settings = ApiSettings()
    password_hash = hash_of(password, settings)
    async with (
        administered_shards(settings) as pools,
        pools[0].acquire() as connection,
        connection.transaction(),
    ):
        added = await connection.fetchval(
            "INSERT INTO users (id, email, name, password_hash)"
            " SELECT $1::uuid, $2::text, $3::text, $4::text"
            " WHERE NOT EXISTS (SELECT FROM users WHERE email = ANY ($5::text[]))"
            " ON CONFLICT DO NOTHING RETURNING id",
            identity,
            forms[-1],
            name,
            password_hash,
            list(forms),
        )
    if added is None:
        raise Refused(
            f"There is a user with the address {forms[-1]} or the id {identity.hex} already."
        )
    return identity.hex
