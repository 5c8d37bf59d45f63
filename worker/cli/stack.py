"""``shopvision stack``: Postgres, Redis, workers, beat and Flower on this machine, without Docker or root."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group

from worker.cli.output import JsonFlag, emit, error_console, table

if TYPE_CHECKING:
    from worker.stack.state import StackState

app = typer.Typer(no_args_is_help=True, help="Run everything on this machine: servers, workers, beat, Flower.")


@app.command()
def up(
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when it is ready, and leave it running.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Start the stack of this folder, and keep it running until Ctrl-C or `stack down`."""
    from shopvision.settings import get_settings

    home = get_settings().home
    if detach:
        from worker.stack.detached import start_detached

        state = start_detached(home, lambda step: error_console.print(f"starting {step} ..."))
        emit(_describe(state), as_json, lambda: _show(state))
        return

    from worker.logs import configure_logging
    from worker.stack.supervisor import Supervisor

    configure_logging()
    Supervisor(home, lambda state: emit(_describe(state), as_json, lambda: _show(state))).run()


@app.command()
def down(as_json: JsonFlag = False) -> None:
    """Stop the stack of this folder; its data stays."""
    from shopvision.settings import get_settings
    from worker.stack.detached import stop

    home = get_settings().home
    stopped = stop(home)
    emit(
        {"home": str(home), "stopped": stopped}, as_json, lambda: "Stopped." if stopped else f"No stack runs in {home}."
    )


@app.command()
def status(as_json: JsonFlag = False) -> None:
    """Show what runs, where Flower is, and its password. Exits 1 unless everything runs and the disk has room."""
    from shopvision.settings import get_settings
    from worker.stack.detached import read_status

    home = get_settings().home
    state = read_status(home)
    if state is None:
        emit(
            {"home": str(home), "phase": "stopped"},
            as_json,
            lambda: f"No stack runs in {home}: start one with `shopvision stack up`.",
        )
        raise typer.Exit(1)
    emit(_describe(state), as_json, lambda: _show(state))
    running = all(process.running for process in state.processes.values())
    if state.phase != "ready" or state.warning or not running:
        raise typer.Exit(1)


@app.command()
def env(as_json: JsonFlag = False) -> None:
    """Print what to export so that a producer on this machine reaches the stack: `eval "$(shopvision stack env)"`."""
    from shopvision.errors import UserError
    from shopvision.local_stack_env import stack_environment
    from shopvision.settings import get_settings
    from worker.stack.detached import read_status

    home = get_settings().home
    found = stack_environment(home) if read_status(home) is not None else {}
    if not found:
        raise UserError(f"No stack runs in {home}: start one with `shopvision stack up --detach`.")
    variables = {f"SHOPVISION_{name.upper()}": str(value) for name, value in {"home": home, **found}.items()}
    if as_json:
        typer.echo(json.dumps(variables, indent=2))
        return
    for name, value in variables.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


def _describe(state: StackState) -> dict[str, Any]:
    from shopvision.settings import get_settings

    return {
        "home": str(get_settings().home),
        "phase": state.phase,
        "message": state.message,
        "warning": state.warning,
        "flower": {"url": state.flower_url, "user": state.flower_user, "password": state.flower_password},
        "supervisor": state.supervisor.pid,
        "processes": {
            name: {
                "pid": process.mark.pid,
                "running": process.running,
                "restarts": process.restarts,
                "log": str(process.log),
            }
            for name, process in state.processes.items()
        },
    }


def _show(state: StackState) -> Group:
    rows = [
        (name, process.mark.pid, "running" if process.running else "restarting", process.restarts, process.log)
        for name, process in state.processes.items()
    ]
    lines: list[Any] = [f"The stack is {state.phase}{f': {state.message}' if state.message else ''}."]
    if state.warning:
        lines.append(f"{state.warning} What runs goes on meanwhile.")
    if state.flower_url:
        lines.append(f"Flower: {state.flower_url}   user {state.flower_user}   password {state.flower_password}")
    return Group(*lines, "", table(("process", "pid", "state", "restarts", "log"), rows))
