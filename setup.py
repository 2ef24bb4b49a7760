"""What the package is: its name, its parts and what they need. Tools are configured in pyproject.toml."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "torchrl" / "__init__.py").read_text(), re.MULTILINE).group(1)

# Lower bounds are what the test suite has run on; constraints.txt holds the exact versions.
REQUIRED = [
    "torch>=2.13",
    "tensordict>=0.15.3,<0.16",
    "numpy>=2.0",
    "gymnasium>=1.4,<2",
    "cloudpickle>=3.0",
    "configargparse>=1.9",
    "tensorboard>=2.19",
    "tqdm>=4.66",
]

MUJOCO = "mujoco>=3.3,<4"  # dm_control 1.0.50 breaks with mujoco 4.0.0

PYGAME = "pygame-ce>=2.5"  # draws gymnasium's classic control and Box2D tasks

EXTRAS = {
    "atari": ["ale-py>=0.12.1", "opencv-python-headless>=5.0"],  # which resizes its pictures
    "benchmarks": ["stable-baselines3>=2.9", "sb3-contrib>=2.9"],  # what whole trainings are timed against
    "box2d": ["Box2D>=2.3.10", PYGAME],
    "classic-control": [PYGAME],
    "dm-control": ["dm_control>=1.0.50", MUJOCO],
    "docs": ["sphinx>=9.0", "furo>=2025.12.19", "myst-parser>=5.0"],
    "envpool": ["envpool>=1.1.1"],  # from 1.2 on it pulls 270 MB of assets; constraints.txt holds it before
    "jax": ["jax>=0.10"],  # of the libraries of jax_world, docs/worlds.md says which install beside the rest
    "minari": ["minari>=0.5.4", "h5py>=3.16", "pillow>=10"],  # its HDF5 reader needs pillow
    "minari-arrow": ["minari>=0.5.4", "pillow>=10", "pyarrow>=21"],  # its formats arrow and parquet; 170 MB
    "minigrid": ["minigrid>=3.2", PYGAME],
    "mlflow": ["mlflow-skinny>=3.17", "sqlalchemy>=2.0", "alembic>=1.13"],  # its plain files are refused from 3.17 on
    "mujoco": [MUJOCO, "imageio>=2.34"],  # gymnasium's MuJoCo environments import imageio
    "onnx": ["onnx>=1.23", "onnxscript>=0.7.2", "onnxruntime>=1.32"],  # 120 MB
    "plots": ["matplotlib>=3.9"],
    "sweep": ["optuna>=5"],
    "video": ["av>=16"],  # brings its own ffmpeg
    "wandb": ["wandb>=0.31"],
    "dev": ["pytest>=8.3", "pytest-timeout>=2.3", "pytest-xdist>=3.8", "hypothesis>=6.100", "mypy>=2.4", "ruff>=0.17"],
}


class BuildWithExamples(build_py):
    """Copy the examples and their configs into the package of a wheel, where ``torchrl train`` finds them."""

    def run(self):
        """Build the package, then copy; an editable install has the examples beside the package."""
        super().run()
        if not self.editable_mode:
            copy = Path(self.build_lib) / "torchrl" / "examples"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(HERE / "examples", copy, ignore=shutil.ignore_patterns("__pycache__", "*_logging"))


setup(
    name="torchrl",
    version=VERSION,
    description="Reinforcement learning in PyTorch, with one container for everything: the TensorDict.",
    author="The torchrl authors",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["torchrl", "torchrl.*"]),
    package_data={"torchrl": ["py.typed"]},
    cmdclass={"build_py": BuildWithExamples},
    install_requires=REQUIRED,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["torchrl = torchrl.commands.main:main"]},
    zip_safe=False,
)
