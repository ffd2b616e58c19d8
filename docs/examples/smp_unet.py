"""SAR with models of segmentation-models-pytorch (smp), on squares and discs drawn here.

    python docs/examples/smp_unet.py            (about 10 seconds; needs segmentation-models-pytorch)

The anchors go through the classifier of the pixels, so that must be a 1x1 convolution. smp's DeepLabV3,
DeepLabV3Plus, FPN, Linknet, Segformer and UPerNet end with one: they fit as they are (FPN: decoder_dropout=0,
for the features count before dropout). Unet and the others end with 3x3: replace it, as main() does for Unet.
"""

import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.nn import functional as F

from sarx import SemanticAnchorRegularizer

CLASSES = 3  # background, square, disc


def draw(count=4, size=64):
    """Return images (B, 3, H, W) and labels (B, H, W), one noisy square and one noisy disc in each."""
    labels = torch.zeros(count, size, size, dtype=torch.long)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    for label in labels:
        (top, left), (disc_y, disc_x) = torch.randint(12, size - 12, (2, 2)).tolist()
        label[top - 9 : top + 9, left - 9 : left + 9] = 1
        label[(y - disc_y) ** 2 + (x - disc_x) ** 2 < 100] = 2
    images = (labels > 0)[:, None].float() + 0.3 * torch.randn(count, 3, size, size)
    return images, labels


def train(name, model, steps=30):
    """Train for a few steps with SAR and print the losses."""
    classifier = model.segmentation_head[0]
    sar = SemanticAnchorRegularizer(num_classes=CLASSES, feature_dim=classifier.in_channels)
    optimizer = torch.optim.SGD([*model.parameters(), *sar.parameters()], lr=0.02, momentum=0.9)
    for step in range(1, steps + 1):
        images, labels = draw()
        features = model.decoder(model.encoder(images))  # these two lines are model(images), cut in two
        logits = model.segmentation_head(features)  # classifier, then upsampling to the size of the images
        cross_entropy = F.cross_entropy(logits, labels)
        output = sar(features, labels, classifier)  # brings the labels to the size of the features itself
        optimizer.zero_grad()
        (cross_entropy + output.loss).backward()
        optimizer.step()
        if step in (1, 10, 20, steps):
            aux, pull = output.metrics["train/aux_loss"], output.metrics["train/pull_loss"]
            print(f"{name} step {step}: cross-entropy {cross_entropy:.3f}, aux {aux:.3f}, pull {pull:.3f}")
    sizes = f"features {tuple(features.shape[1:])}, labels {tuple(labels.shape[1:])}"
    print(f"{name}: {sizes}, gate first open after {sar.first_open_step.item()} steps")


def main():
    """Train a model that fits as it is, and a Unet whose 3x3 classifier is replaced."""
    torch.manual_seed(0)
    train("DeepLabV3Plus", smp.DeepLabV3Plus("mobilenet_v2", encoder_weights=None, classes=CLASSES))
    unet = smp.Unet("mobilenet_v2", encoder_weights=None, classes=CLASSES)
    unet.segmentation_head[0] = nn.Conv2d(unet.segmentation_head[0].in_channels, CLASSES, kernel_size=1)
    train("Unet", unet)


if __name__ == "__main__":
    main()
