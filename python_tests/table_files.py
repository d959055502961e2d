"""Small tables of the names that `led-fast reproduce tables` wants."""

import numpy as np


def write_files(folder, rows=300):
    """Small files of the wanted names: a column of whole numbers, two continuous ones."""
    random = np.random.default_rng(0)
    classes = {"letter": "ABCDE", "shuttle": ["Rad.Flow", "High"], "satellite": "pqrstu"}
    for name, labels in classes.items():
        lines = ["whole,class,real,other"]
        for i in range(rows):
            real = random.standard_normal()
            other = real + 0.3 * random.standard_normal()
            # Rarer and rarer labels.
            label = labels[min(int(random.exponential(1.2)), len(labels) - 1)]
            lines.append(f"{i % 4}.0,{label},{real:.6f},{other:.6f}")
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return folder
