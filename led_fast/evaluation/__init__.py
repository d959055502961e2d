"""How good a trained density is, and how far its numbers can be believed."""

from led_fast.evaluation.auroc import auroc
from led_fast.evaluation.features import FeatureNetwork, open_features
from led_fast.evaluation.frechet import frechet_distance
from led_fast.evaluation.image_normalizer import ImageNormalizer, estimate_image_normalizer
from led_fast.evaluation.image_table import image_report_table
from led_fast.evaluation.images import (
    ImageEvaluation,
    ImageSampler,
    bits_per_pixel,
    evaluate_image_flow,
    evaluate_image_samples,
    evaluate_images,
)
from led_fast.evaluation.modes import ModeCount, count_modes
from led_fast.evaluation.normalizer import plane_verdict, quadrature_in_data_coordinates
from led_fast.evaluation.quality import SampleJudge, sample_quality
from led_fast.evaluation.refined_images import RefinedImages, refine_images
from led_fast.evaluation.report import Evaluation, evaluate
from led_fast.evaluation.schema import SCHEMA
from led_fast.evaluation.score import ImageDensities, ImageScore, score_image_batches, score_images
from led_fast.evaluation.table import report_table
from led_fast.evaluation.table_score import OddColumn, OddRow, TableScores, score_rows
from led_fast.evaluation.table_summary import table_summary
from led_fast.evaluation.tables import LabelledRows, TableEvaluation, evaluate_table, labelled_rows

__all__ = [
    "SCHEMA",
    "Evaluation",
    "FeatureNetwork",
    "ImageDensities",
    "ImageEvaluation",
    "ImageNormalizer",
    "ImageSampler",
    "ImageScore",
    "LabelledRows",
    "ModeCount",
    "OddColumn",
    "OddRow",
    "RefinedImages",
    "SampleJudge",
    "TableEvaluation",
    "TableScores",
    "auroc",
    "bits_per_pixel",
    "count_modes",
    "estimate_image_normalizer",
    "evaluate",
    "evaluate_image_flow",
    "evaluate_image_samples",
    "evaluate_images",
    "evaluate_table",
    "frechet_distance",
    "image_report_table",
    "labelled_rows",
    "open_features",
    "plane_verdict",
    "quadrature_in_data_coordinates",
    "refine_images",
    "report_table",
    "sample_quality",
    "score_image_batches",
    "score_images",
    "score_rows",
    "table_summary",
]
