#!/usr/bin/env bash
# An actor of Ray belongs to the cluster that it was made in. Asked after ray.shutdown(), as a thread does that learns late of the end,
# its handle is not refused: ray.init() is called unasked, which begins another local cluster, with all of the machine's processors,
# and only then the question fails, as that cluster knows no such actor. The process is connected to the new one from then on. One
# would guess an error that no cluster is there. RAY_ENABLE_AUTO_CONNECT=0, before Ray is imported, makes it an error (AttributeError).
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check ray==2.60.0
cd "$folder"
cat > show.py <<'PYTHON'
import sys

import ray


@ray.remote
class Clerk:
    def greet(self):
        return "good day"


def ask(clerk):
    try:
        return ray.get(clerk.greet.remote())
    except Exception as error:
        return f"{type(error).__name__}, {str(error)[:60]}"


ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
clerk = Clerk.remote()
first = ray.get_runtime_context().gcs_address
print("ray", ray.__version__, "| asked in its cluster:", ask(clerk))
ray.shutdown()
left = not ray.is_initialized()
print("left:", left, "| asked again:", ask(clerk))
again = ray.is_initialized()
print("connected, though nothing was begun:", again)
another = again and ray.get_runtime_context().gcs_address != first
print("to another cluster:", another)
ray.shutdown()
sys.exit(0 if left and another else 1)
PYTHON
for connects in 1 0; do
    echo "RAY_ENABLE_AUTO_CONNECT=$connects"
    status=0
    RAY_USAGE_STATS_ENABLED=0 RAY_ENABLE_AUTO_CONNECT=$connects env/bin/python show.py 2>/dev/null || status=$?
    [ "$status" = "$((1 - connects))" ] || exit 1
done
