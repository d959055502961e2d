"""Writes docs/results.md from the result files beside this script: `python docs/results/page.py`.

The files come from `led-fast reproduce EXPERIMENT --out docs/results`; of their folder only EXPERIMENT.json and
EXPERIMENT.png are kept in the repository, large pictures with a palette of 256 colours.
"""

from pathlib import Path

from led_fast.reproduce import EXPERIMENTS
from led_fast.reproduce.content import read_content

HERE = Path(__file__).parent

INTRODUCTION = """# Results in the plane

Every table and picture below is the output of one command, named under it, which trains, measures and draws; what it
measured is in [results/](results/), the seeds, configs and versions included. `python docs/results/page.py` makes this
page of those files.
"""

COMMENTS = {
    "table1": """\
The paper reports 8 modes and 63.5 % on the ring, 16.2 modes and 68.3 % on the grid. Its own family of generators,
[made to work](paper_family.md), finds all modes of the ring and more of the grid's than the paper says, and more of its
samples lie within 3σ (`paper`); its density, with log α by quadrature, is within .002 nats of the truth. The
generator's own estimate of log α is within .06 nats on the ring and .13 on the grid; where its k̂ is above .7, the
report calls it unreliable.

Our default finds all modes with every seed. What does the work: its generator starts from a **learned mixture of 64
normals**. A mixture can represent these two data sets exactly, and it does most of the separating of the modes; its
number is not tied to theirs. The critic's density does not depend on it. The GAN has the default's two networks and
the same noisy data, and only other losses. The spline flow needs no normaliser, because its density is exact; it
leaves bridges between the modes. `paper_printed` is to take 20,000 steps and diverges with every seed, after 6,600
to 10,000 of them, when its generator's loss has passed 14,000 nats: 256 samples, nearly all of them the generator's, do
not hold the critic's values back.""",
    "figure1": """\
The kernel density estimate, of 5,000 samples and with its width chosen by validation, makes a spot of every stray
sample of the generator and is ragged at the modes; the critic has learned that these samples are unlikely. So the
bridges of the paper's family, below the upper rows, are in the kernel density and not in the critic's.""",
    "figure6": """\
As printed: slope 1 to the right, β/α to the left, and invertible everywhere.""",
    "figure7": """\
As the paper found, one integral sample is not enough: from step 1,000 on, the estimate is nats too low, or a matter of
luck, with *any* number of samples, because the critic has mass where the generator never draws. With 64 samples the
default's estimate is right at every moment, and 256 are hardly better. The paper's family is right with 64, too, until
its generator leaves modes and bridges behind: then few weights hold most of the sum, and 1,024 samples are not enough.

Note k̂ = 0.58 in a row that is 19 nats off: the weights alone cannot see what the proposal misses. So every report of
ours sets other, independent estimates beside the first.""",
    "figure8": """\
1,500 steps, one seed. That is short for the paper's family: most of its modes count by a cloud of samples alone
([longer runs of 32 blocks](paper_family.md)). Up to 256 features train; one seed shows no trend with width.

Below, the default with one normal as base instead of its mixture, so that all separating of the modes is the layers'
work. Depth matters and width does not: one block leaves out three to five modes at any width, two blocks and four
reach 24 or 25, and the bridges between them thin out.""",
    "ablations": """\
A quarter of the default's steps and one seed, so only large gaps mean anything, and the generator is not sharp yet.

- **S**: with one integral sample the run collapses, as in Figure 7; 64, 256 and 384 cannot be told apart.
- **Proposals**: one broad normal as printed (B.3) leaves almost four times the default's KL(p* ‖ p_θ). Either the
  blurred data or the balance mends most of it; the share ε hardly matters.
- **k**: a smaller entropy weight draws a sharper generator this early, and cost no mode here. The density is the same.
- **Generator's loss**: by the reverse KL alone (Eq. 5) the samples are less than half as good, and ESS/S a third.
- **Noise**: without the falling noise on the data modes are lost, and log α is underestimated. The floor under the
  target does not matter on this data.
- **Base**: one normal finds 19 modes, 23 with three times the blocks, behind bridges everywhere; its critic's density
  is within .07 nats all the same.
- **Norm**: batch statistics in the flow cost three quarters of the good samples, running ones a
  third; ActNorm costs nothing.
- **Slice**: four features with a learned conditional do about as well as two; with a fixed σ half the good samples go.
- **Perpendicular penalty**: it makes the critic's density three to four times worse here, not the samples.""",
    "penalty": """\
Every critic, with the penalty or without, puts data 14 nats or more above noise and shifted data. In the plane the
penalty does not widen that margin, in the paper's family as little as in ours: without it the Fourier features and the
tail already do the work, and with it the density of the data themselves is two to five times further from the truth,
and the samples are no better. So it is off by default there. On images, early in a run and over two seeds, critics with
the penalty tell shifted images better. (These images were made by `mnist32`'s generator of version 0.1.0; the critics
do not tilt it.)""",
    "speed": """\
The default's networks use none of the operators with kernels of ours, so its ratio is 1 up to noise; the perpendicular
and the paper's preset use them.""",
}
"""What a reader should take from each experiment, by its name."""


def main() -> None:
    (HERE.parent / "results.md").write_text(page())


def page() -> str:
    """The whole page: a section for each experiment whose result file is there."""
    return "\n".join([INTRODUCTION, *(section(name) for name in EXPERIMENTS if _file(name).exists())])


def section(name: str) -> str:
    content = read_content(_file(name))
    if content["quick"]:
        raise ValueError(f"{_file(name)}: is of a quick run, which is no result")
    experiment = EXPERIMENTS[name]
    parts = [f"## {experiment.title}", COMMENTS[name]]
    if experiment.draw is not None:
        parts.append(f"![{experiment.title}](results/{name}.png)")
    parts.append(experiment.markdown(content).strip())
    cells = content["cells"].values()
    made = sorted({f"version {c['version']}, torch {c['torch']}, {c['machine']}" for c in cells})
    parts.append(f"`{content['command']}`: {'; '.join(made)}, one thread a training.")
    return "\n\n".join(parts) + "\n"


def _file(name: str) -> Path:
    return HERE / f"{name}.json"


if __name__ == "__main__":
    main()
