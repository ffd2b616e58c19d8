"""SAR under DistributedDataParallel (DDP): several processes, one regularizer.

    python docs/examples/ddp.py                                        (two processes, about 8 seconds)
    torchrun --standalone --nproc-per-node 2 docs/examples/ddp.py      (the same, launched as on a cluster)

The regularizer is inside the module that DDP wraps and runs in its forward. Outside, each process would train
a projector of its own, and the gradient that the anchors send to the classifier would not be averaged.
"""

import os
import sys
import tempfile

import torch
from torch import distributed, nn
from torch.nn import functional as F

from sarx import SemanticAnchorRegularizer


class Network(nn.Module):
    """Backbone, classifier and regularizer; the forward returns the loss to train on."""

    def __init__(self):
        """Build the three parts."""
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(20, 32), nn.ReLU())
        self.classifier = nn.Linear(32, 5)
        self.sar = SemanticAnchorRegularizer(num_classes=5, feature_dim=32)

    def forward(self, inputs, labels):
        """Return cross-entropy plus SAR."""
        features = self.backbone(inputs)
        loss = F.cross_entropy(self.classifier(features), labels)
        return loss + self.sar(features, labels, self.classifier).loss


def check_equal(name, tensor):
    """Let process 0 compare its values with those of every other process."""
    if distributed.get_rank() > 0:  # not all_gather: just before the exit, gloo may abort it
        distributed.send(tensor, dst=0)
        return
    for source in range(1, distributed.get_world_size()):
        received = torch.empty_like(tensor)
        distributed.recv(received, src=source)
        assert torch.equal(tensor, received), f"{name}: process {source} holds other values than process 0"
    print(f"{name}: equal in all {distributed.get_world_size()} processes, norm {tensor.norm():.3f}")


def train(rank=-1, world_size=-1, store=None):
    """Join the other processes (by default as torchrun says), train, and compare the regularizers."""
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size)
    torch.manual_seed(distributed.get_rank())  # other weights and other data in every process
    network = Network()
    check_equal("anchors", network.sar.anchors)  # DDP has not touched them: they have a seed of their own
    wrapped = nn.parallel.DistributedDataParallel(network)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.05)
    for _ in range(60):
        loss = wrapped(torch.randn(64, 20), torch.randint(5, (64,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    check_equal("semantic anchors", network.sar.semantic_anchors)
    if distributed.get_rank() == 0:
        print(f"gate first open after {network.sar.first_open_step.item()} steps, last loss {loss:.3f}")
    distributed.barrier()  # nobody leaves while another still compares
    distributed.destroy_process_group()


def main():
    """Train in the processes that torchrun started, or else start two on this machine."""
    if distributed.is_torchelastic_launched():
        train()
        return
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")  # loopback
    with tempfile.TemporaryDirectory() as folder:  # the processes meet in a file, which needs no free port
        torch.multiprocessing.spawn(train, (2, f"file://{folder}/store"), nprocs=2)


if __name__ == "__main__":
    main()
