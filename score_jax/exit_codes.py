"""What a command ends with, besides 0; the numbers are those of sysexits.h where it has one."""

FAILED = 1  # a fault of the program: Python's own, with a traceback
BAD_INPUT = 2  # a mistake in the config, the arguments or the files; the same command ends so again
DOES_NOT_FIT = 3  # `plan` alone: the run does not fit the slice
IO_ERROR = 74  # EX_IOERR: the disk is full, read-only, gone or silent; later the same command goes on
RESUME = 75  # EX_TEMPFAIL: told to stop, and all is saved, or another run has the work directory: start again
STOPPED = 130  # Ctrl-C for the second time: at once, from the checkpoint before the same command goes on


class Resume(Exception):
    """Ends a command with RESUME; its text says what is saved, or who is in the way."""
