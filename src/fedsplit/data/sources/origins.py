"""How the files of published datasets must lie, and where they come from."""

AS_THEY_ARE = (
    "dataset=image_folder reads images as they are: FOLDER/train/<class>/* and FOLDER/test/<class>/*"
)
"""Advice of error messages: the dataset that reads images of any origin."""
_IDX = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte"
_EMNIST = "emnist-byclass-{train,test}-images-idx3-ubyte and -labels-idx1-ubyte"

ORIGINS = {
    "cifar10": "cifar-10-batches-py/*, of https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz unpacked",
    "cifar100": "cifar-100-python/*, of https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz unpacked",
    "mnist": f"MNIST/raw/ with {_IDX}, of https://ossci-datasets.s3.amazonaws.com/mnist/ unpacked",
    "fashion_mnist": f"FashionMNIST/raw/ with {_IDX}, of "
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/ unpacked",
    "svhn": "train_32x32.mat and test_32x32.mat, of http://ufldl.stanford.edu/housenumbers/",
    "femnist": f"EMNIST/raw/ with {_EMNIST}, of https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip "
    "unpacked, or femnist/{train,test}/*.json, of https://github.com/TalwalkarLab/leaf",
    "imagenette": "imagenette2-160/{train,val}/<class>/* (with dataset.size=320px imagenette2-320/, with "
    "full imagenette2/), of https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz unpacked",
    "eurosat": "eurosat/2750/<class>/*.jpg, of EuroSAT.zip of "
    "https://huggingface.co/datasets/torchgeo/eurosat unpacked",
}
"""Files that `dataset.root` must hold for torchvision to read a dataset, and their source, by dataset."""
