"""zbackbone-hub: the daemon, from the command line."""
import logging, sys
from pathlib import Path
from .. import __version__
from ..router.daemon import Settings, serve
def main():
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    sys.exit(serve(Settings(Path(sys.argv[1]), "127.0.0.1:0", "127.0.0.1:0", __version__), lambda a,k: print(f"ready tcp://{a} {k}", flush=True)))
