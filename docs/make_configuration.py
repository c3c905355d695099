"""Writes docs/configuration.md from proxyherd/config, where every key is described.

.venv/bin/python docs/make_configuration.py           writes it
.venv/bin/python docs/make_configuration.py --check   exit 1 if it is not current
"""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path

import msgspec

from proxyherd.config import schema
from proxyherd.config.auth import AuthSettings
from proxyherd.config.rates import RateSettings

PAGE = Path(__file__).with_name("configuration.md")

INTRODUCTION = """\
# The herd's file

*Written by docs/make_configuration.py from proxyherd/config; change it there.*

One TOML file describes the whole herd, and every server reads the same file: the one named by `--config` or
`PROXYHERD_CONFIG`, or else the first of `deploy/herd.toml`, `herd.toml` and `/etc/proxyherd/herd.toml` that is there. Unknown
keys, values out of bounds, and contradictions are errors. The message names file, key and remedy. `proxyherd check-config`
checks a file without starting a server.

## Servers and edges

```toml
edges = [["Bailey", "Bona"]]        # pairs of neighbours; an edge goes both ways

[servers.Bailey]
clients = "127.0.0.1:10000"         # where clients connect
peers = "127.0.0.1:10100"           # where neighbours connect
admin = ["127.0.0.1:10200", "[::1]:10200"]   # one address or several: IPv4, IPv6 or a host name
web = "127.0.0.1:10300"             # where web pages and apps connect; may be left out
```

`0.0.0.0` means every IPv4 address of the host. `[::]` means every IPv6 address, but no IPv4 address. To listen on all,
write both: `clients = ["0.0.0.0:10000", "[::]:10000"]`.

A server's name is a letter and up to 62 more letters, digits, `-` or `_`. With `engine = "redis"` in `[table]`, servers
have no links, so the file has no `edges`, no `peers` and no `[durability]`.
"""

SECTIONS = {
    "limits": schema.Limits,
    "rates": RateSettings,
    "timing": schema.Timing,
    "durability": schema.DurabilitySettings,
    "erasure": schema.ErasureSettings,
    "table": schema.TableSettings,
    "redis": schema.RedisSettings,
    "places": schema.PlacesSettings,
    "tls": schema.TlsSettings,
    "admin": schema.AdminSettings,
    "auth": AuthSettings,
    "web": schema.WebSettings,
    "log": schema.LogSettings,
}


def described(section: type) -> list[tuple[str, str, str, str]]:
    """Return name, default, bounds and description of each key of a section."""
    (definition,) = ast.parse(inspect.getsource(section)).body
    assert isinstance(definition, ast.ClassDef)
    defaults = {one.name: one.default for one in msgspec.structs.fields(section)}
    bounds = bounds_of(section)
    keys: list[tuple[str, str, str, str]] = []
    for statement in definition.body:
        if isinstance(statement, ast.AnnAssign):
            assert isinstance(statement.target, ast.Name)
            default = "required" if statement.value is None else spelled(defaults[statement.target.id])
            keys.append((statement.target.id, default, bounds[statement.target.id], ""))
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and keys:
            keys[-1] = (*keys[-1][:3], " ".join(str(statement.value.value).split()))
    return keys


def bounds_of(section: type) -> dict[str, str]:
    """Return what each key may be: `least to most`, `above 0 to most`, the choices, or nothing."""
    info = msgspec.inspect.type_info(section)
    assert isinstance(info, msgspec.inspect.StructType)
    return {one.name: bounded(one.type) for one in info.fields}


def bounded(kind: msgspec.inspect.Type) -> str:
    """Return the bounds of one type."""
    if isinstance(kind, msgspec.inspect.UnionType):
        return ", ".join(filter(None, map(bounded, kind.types)))
    if isinstance(kind, msgspec.inspect.LiteralType):
        return ", ".join(f'`"{value}"`' for value in kind.values)
    if isinstance(kind, msgspec.inspect.IntType | msgspec.inspect.FloatType):
        least = f"`{kind.ge:_}`" if kind.ge is not None else f"above `{kind.gt}`"
        return f"{least} to `{int(kind.le or 0):_}`"
    return ""


def spelled(value: object) -> str:
    """Return a default as it stands in TOML."""
    if value is None:
        return "none"
    if isinstance(value, str):
        return f'`"{value}"`'
    if isinstance(value, tuple):
        return f"`{list(value)}`"
    if isinstance(value, int):
        return f"`{value:_}`"
    return f"`{value}`"


def page() -> str:
    """Return the whole page."""
    parts = [INTRODUCTION]
    for name, section in SECTIONS.items():
        parts.append(f"\n## `[{name}]`\n\n{' '.join((section.__doc__ or '').split())}\n\n")
        parts.append("| key | default | bounds | meaning |\n| --- | --- | --- | --- |\n")
        parts.extend(f"| {' | '.join((f'`{key}`', *more))} |\n" for key, *more in described(section))
    return "".join(parts)


def main() -> None:
    """Write the page, or check it."""
    if "--check" not in sys.argv:
        PAGE.write_text(page())
    elif not PAGE.exists() or PAGE.read_text() != page():
        sys.exit("docs/configuration.md is not current: run docs/make_configuration.py")


if __name__ == "__main__":
    main()
