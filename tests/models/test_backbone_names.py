"""timm's model names, read without timm."""

import subprocess
import sys

from sarx.models import backbone_names


def test_names_equal_those_of_timm():
    import timm

    assert backbone_names() == set(timm.list_models())


def test_names_are_read_without_importing_timm_or_torch():
    code = (
        "import sys; from sarx.models import backbone_names;"
        "print(len(backbone_names()) > 500, {'timm', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True set()"
