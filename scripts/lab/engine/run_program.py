"""Runs one Pulumi program for the stand-in language host; follows `pulumi/automation/_server.py` of the SDK.

Usage: run_program.py PROGRAM, with the run's options as JSON in SOCI_LAB_RUN and the configuration in
PULUMI_CONFIG and PULUMI_CONFIG_SECRET_KEYS.
"""

import asyncio
import json
import logging
import os
import runpy
import signal
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pulumi
import pulumi.log
from pulumi.runtime import (
    get_config_env,
    get_config_secret_keys_env,
    reset_options,
    run_in_stack,
    set_all_config,
)

ALREADY_SAID = 32


def main() -> int:
    # The engine stops a program with this signal after it has said why.
    signal.signal(signal.SIGINT, lambda *_: os._exit(ALREADY_SAID))
    program = Path(sys.argv[1])
    options = json.loads(os.environ.pop("SOCI_LAB_RUN"))
    reset_options(**options)
    set_all_config(get_config_env(), get_config_secret_keys_env())
    sys.path.insert(0, str(program if program.is_dir() else program.parent))
    sys.argv = [str(program)]
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    loop = asyncio.new_event_loop()
    loop.set_default_executor(ThreadPoolExecutor(max_workers=max(options["parallel"], 1) * 4))
    loop.set_exception_handler(on_loop_error)
    try:
        loop.run_until_complete(run_in_stack(lambda: run(program)))
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
        return 1
    except grpc.RpcError as error:
        # The engine closes its monitor when a resource has failed, and has said why by then.
        gone = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        return ALREADY_SAID if isinstance(error, grpc.Call) and error.code() in gone else 1
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1 if error.code else 0
    except Exception as error:  # noqa: BLE001  (reported to the user, whatever it is)
        pulumi.log.error("Program failed with an unhandled exception:\n" + users_traceback(error, program))
        return ALREADY_SAID
    finally:
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        if pending:
            loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
    return 0


def run(program: Path) -> None:
    """Run the program as Python runs a folder or a file."""
    runpy.run_path(str(program), run_name="__main__")


def users_traceback(error: Exception, program: Path) -> str:
    """Return the error's traceback from the program's own first frame on."""
    frame = error.__traceback__
    while frame and not frame.tb_frame.f_code.co_filename.startswith(str(program)):
        frame = frame.tb_next
    return "".join(traceback.format_exception(type(error), error, frame or error.__traceback__))


def on_loop_error(loop: asyncio.AbstractEventLoop, context: dict) -> None:
    """Stop when the engine is gone, as the SDK's own server does; report anything else."""
    if isinstance(context.get("exception"), grpc.RpcError):
        loop.stop()
    else:
        loop.default_exception_handler(context)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Worker threads may still wait for an engine that has gone; nothing of theirs is wanted any more.
    os._exit(status)
