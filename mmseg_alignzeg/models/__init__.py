"""Models, in the order of the data flow."""

from .alignzeg import AlignZeg
from .answer import Answer
from .bias_correction import ClassIndicator, PredictiveBiasCorrection
from .calibrated_stacking import CalibratedStacking
from .class_embeddings import EmbeddingBank
from .class_names import ClassNames
from .clip_source import CLIPSource
from .criterion import AlignZegCriterion
from .data_preprocessor import PinnedSegDataPreProcessor
from .decoding import EnsembleDecoder, SemanticDecoder
from .image_encoder import ImageEncoder
from .losses import BackgroundDiversityLoss, FeatureExpansionLoss
from .mrpe_head import MRPEHead
from .oracle import OracleDecoder
from .pixel_decoder_head import PixelDecoderHead
from .plain_decoder_head import PlainDecoderHead
from .proposals import Proposals
from .question import Question
from .semantic_head import CLIPSemanticHead
from .templates import get_templates
from .text_bank import TextBank
from .towers import CLIPStream, CLIPTower, build_tower
from .views import View
from .zero_shot_segmentor import ZeroShotSegmentor

__all__ = [
    'AlignZeg',
    'AlignZegCriterion',
    'Answer',
    'BackgroundDiversityLoss',
    'CLIPSemanticHead',
    'CLIPSource',
    'CLIPStream',
    'CLIPTower',
    'CalibratedStacking',
    'ClassIndicator',
    'ClassNames',
    'EmbeddingBank',
    'EnsembleDecoder',
    'FeatureExpansionLoss',
    'ImageEncoder',
    'MRPEHead',
    'OracleDecoder',
    'PinnedSegDataPreProcessor',
    'PixelDecoderHead',
    'PlainDecoderHead',
    'PredictiveBiasCorrection',
    'Proposals',
    'Question',
    'SemanticDecoder',
    'TextBank',
    'View',
    'ZeroShotSegmentor',
    'build_tower',
    'get_templates',
]
