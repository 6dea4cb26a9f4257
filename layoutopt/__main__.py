"""The command line: python -m layoutopt COMMAND."""
import argparse
import sys

from . import calibrate, explain_program, info, run

# Each command is a module with add_arguments(parser) and run(args) -> exit status.
COMMANDS = {
    "run": (run, "run a program under layoutopt; --compare: with and without"),
    "explain": (explain_program, "run a program and say what became of its convolutions and poolings, and why"),
    "info": (info, "print versions and settings, for a bug report"),
    "calibrate": (calibrate, "measure this machine, so that plans rest on its own speeds"),
}


def main(arguments=None):
    """Run a command.

    Parameters
    ----------
    arguments : list of str, optional
        By default the process's.

    Returns
    -------
    int
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m layoutopt", description=sys.modules["layoutopt"].__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, summary) in COMMANDS.items():
        module.add_arguments(commands.add_parser(name, help=summary, description=summary))
    args = parser.parse_args(arguments)
    module, _ = COMMANDS[args.command]
    return module.run(args)


if __name__ == "__main__":
    sys.exit(main())
