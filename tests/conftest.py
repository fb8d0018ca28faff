"""What holds for every test in Python."""

import signal

# Programs that the tests start inherit what a shell in the background does: ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
