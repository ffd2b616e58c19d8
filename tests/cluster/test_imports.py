"""What a driver does not import: seconds in which the workers would have to share the processor with it."""

import subprocess
import sys


def test_a_driver_leaves_torch_to_the_workers():
    code = (
        "import sys\n"
        "from ray import tune\n"
        "from sarx.cluster import searcher, slots\n"
        "from sarx.cluster.driver import host_of\n"
        "from sarx.study.schema import Resources\n"
        "hosts = [host_of(Resources(num_workers=n)) for n in (1, 2)]\n"
        "print([host.__name__ for host in hosts], sorted({'torch', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "['TrialHost', 'SessionHost'] []"
