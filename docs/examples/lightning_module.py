"""SAR in a Lightning module, on scikit-learn's handwritten digits.

    python docs/examples/lightning_module.py    (about 6 seconds; needs pytorch-lightning and scikit-learn)

The regularizer is a submodule: so `self.parameters()` hands its projector to the optimizer, checkpoints hold
its state, and strategies that wrap the module (DDP) synchronise its gradients. With the package `lightning`
the import reads `import lightning as pl`; nothing else changes.
"""

import pytorch_lightning as pl
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from sarx import SemanticAnchorRegularizer


class DigitClassifier(pl.LightningModule):
    """A small network that trains with cross-entropy and SAR."""

    def __init__(self):
        """Build backbone, classifier and regularizer."""
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU())
        self.classifier = nn.Linear(64, 10)
        self.sar = SemanticAnchorRegularizer(num_classes=10, feature_dim=64)

    def forward(self, images):
        """Return the logits (N, 10); inference needs nothing of the regularizer."""
        return self.classifier(self.backbone(images))

    def training_step(self, batch, index):
        """Return the loss of one batch and log what the regularizer measures."""
        images, labels = batch
        features = self.backbone(images)
        first = index % self.trainer.accumulate_grad_batches == 0  # of the batches of one optimizer step
        output = self.sar(features, labels, self.classifier, advance=first)
        loss = F.cross_entropy(self.classifier(features), labels) + output.loss
        self.log_dict({"train/loss": loss, **output.metrics})
        return loss

    def configure_optimizers(self):
        """Return one optimizer for everything, the projector included."""
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def main():
    """Train for two epochs and print what was logged in the last step."""
    pl.seed_everything(0)
    digits = load_digits()
    data = TensorDataset(torch.tensor(digits.data).float() / 16, torch.tensor(digits.target))
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(accelerator="cpu", max_epochs=2, **options)
    trainer.fit(DigitClassifier(), DataLoader(data, batch_size=64, shuffle=True))
    print("  ".join(f"{name} {value:.4g}" for name, value in trainer.callback_metrics.items()))


if __name__ == "__main__":
    main()
