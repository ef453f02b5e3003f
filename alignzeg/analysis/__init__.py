"""Analysis of a model from one pass over a test set: curves, oracle, masks, indicator and confusions."""

from .collect import AnalysisTask, ImageProposals, collect
from .curves import Variant, image_counts, plan_variants
from .report import Curves, measured, write_report
from .storage import Fingerprint, ProposalWriter, read_proposals
from .summary import Summary

__all__ = [
    'AnalysisTask',
    'Curves',
    'Fingerprint',
    'ImageProposals',
    'ProposalWriter',
    'Summary',
    'Variant',
    'collect',
    'image_counts',
    'measured',
    'plan_variants',
    'read_proposals',
    'write_report',
]
