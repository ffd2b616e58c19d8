"""SAR in a plain PyTorch loop, on a long-tailed part of scikit-learn's handwritten digits.

    python docs/examples/plain_loop.py          (about 6 seconds; needs scikit-learn)

Trains the same network twice, from equal weights and on equal batches, without and with the regularizer, and
prints the accuracy on held-out digits. One seed is no evidence: the difference may go either way.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from sarx import SemanticAnchorRegularizer


def long_tailed_digits():
    """Return images (N, 64) and labels (N,) to train on, 100 zeros down to 5 nines, and held-out ones."""
    digits = load_digits()
    images, labels = torch.tensor(digits.data).float() / 16, torch.tensor(digits.target)
    rows = []
    for digit in range(10):
        count = round(100 * 20 ** (-digit / 9))
        rows += (labels[:1200] == digit).nonzero()[:count, 0].tolist()
    return images[rows], labels[rows], images[1200:], labels[1200:]  # by position: writers come in blocks


def train(images, labels, with_sar):
    """Return the trained network and the metrics of the regularizer's last step."""
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU())
    classifier = nn.Linear(64, 10)
    sar = SemanticAnchorRegularizer(num_classes=10, feature_dim=64)
    parameters = [*backbone.parameters(), *classifier.parameters(), *sar.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    metrics = {}
    for _ in range(400):
        batch = torch.randint(len(images), (64,))
        features = backbone(images[batch])
        loss = F.cross_entropy(classifier(features), labels[batch])
        if with_sar:
            output = sar(features, labels[batch], classifier)
            loss, metrics = loss + output.loss, output.metrics
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return nn.Sequential(backbone, classifier).eval(), metrics  # inference needs nothing of the regularizer


def main():
    """Train both networks and print accuracies and metrics."""
    images, labels, held_out_images, held_out_labels = long_tailed_digits()
    for with_sar in (False, True):
        network, metrics = train(images, labels, with_sar)
        accuracy = (network(held_out_images).argmax(dim=1) == held_out_labels).float().mean()
        print(f"{'with' if with_sar else 'without'} SAR: held-out accuracy {accuracy:.3f} (one seed)")
    print("  ".join(f"{name} {value:.4g}" for name, value in metrics.items()))


if __name__ == "__main__":
    main()
