"""The command `estudio`, also as `python -m estudio_core`: says what to install where the command line is not."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    try:
        from estudio_core.cli import app
    except ModuleNotFoundError as error:
        lacking = (error.name or "").partition(".")[0]
        if lacking not in {"typer", "rich"}:
            raise
        sys.exit(f"The command line needs {lacking}, which is not installed. Run: pip install 'estudio[cli]'")
    app(prog_name="estudio")


if __name__ == "__main__":
    main()
