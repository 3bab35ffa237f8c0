"""Strimzi's two authorities: of the brokers' certificates, and of the users'."""

from dataclasses import dataclass
from typing import Final, Literal, Self

from e2e.strimzi import CLUSTER, LABELS
from e2e.strimzi.secrets import put, read, secret
from support.certificates import Authority

Which = Literal["cluster", "clients"]

_CURRENT: Final = "ca.crt"


@dataclass
class StoredAuthority:
    """An authority, and the certificates that are trusted while it takes another's place."""

    which: Which
    current: Authority
    former: dict[str, bytes]
    """Certificates of authorities that were replaced, each by its key in the Secret."""

    @classmethod
    def load(cls, which: Which) -> Self:
        """Return what the Secrets hold; make them if they are not there."""
        certificates, key = read(f"{CLUSTER}-{which}-ca-cert"), read(f"{CLUSTER}-{which}-ca")
        if not certificates or not key:
            made = cls(which, Authority(f"{which}-ca v0"), {})
            made.store()
            return made
        current = Authority.load(certificates.pop(_CURRENT), key["ca.key"])
        return cls(which, current, certificates)

    @property
    def trusted(self) -> bytes:
        """All certificates, in one file."""
        return self.current.certificate + b"".join(self.former.values())

    def replaced(self) -> Self:
        """Return a new authority beside this one, as after `strimzi.io/force-replace`."""
        former = f"ca-{self.current.ends:%Y-%m-%dT%H-%M-%SZ}.crt"
        new = Authority(f"{self.which}-ca v1")
        return type(self)(self.which, new, {**self.former, former: self.current.certificate})

    def alone(self) -> Self:
        """Return it without those that it has replaced."""
        return type(self)(self.which, self.current, {})

    def store(self) -> None:
        """Write both Secrets."""
        labels = {**LABELS, "strimzi.io/component-type": "certificate-authority"}
        name = f"{CLUSTER}-{self.which}-ca"
        certificates = {_CURRENT: self.current.certificate, **self.former}
        put(
            secret(name, {"ca.key": self.current.key}, labels=labels),
            secret(f"{name}-cert", certificates, labels=labels),
        )
