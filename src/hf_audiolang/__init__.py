# Copyright 2026 The hf_audiolang authors
# Licensed under the Apache License, Version 2.0.
"""Audio-language pretraining for transformers.

After `import hf_audiolang`, transformers' `AutoModel`, `AutoProcessor`, `AutoFeatureExtractor`,
`AutoModelForPreTraining`, `AutoModelForAudioClassification`, `AutoModelForAudioFrameClassification` and
`AutoModelForSpeechSeq2Seq` load the package's models from folders and from the Hub.
"""

from hf_audiolang.auto import export_with_code, register_all
from hf_audiolang.captioning import caption_files
from hf_audiolang.detection import detect_files, ground_files
from hf_audiolang.inference import classify_files, embed_files, search_files
from hf_audiolang.models.configuration_audio_projector import AudioProjectorConfig
from hf_audiolang.models.configuration_caption_decoder import CaptionDecoderConfig
from hf_audiolang.models.configuration_captionstew import CaptionStewConfig
from hf_audiolang.models.configuration_htsat import HtsatConfig
from hf_audiolang.models.configuration_m2d_clap import M2dClapConfig
from hf_audiolang.models.configuration_m2d_clap_audio import M2dClapAudioConfig
from hf_audiolang.models.configuration_mga_clap import MgaClapConfig
from hf_audiolang.models.configuration_native_audio import NativeAudioConfig
from hf_audiolang.models.configuration_slap import SlapConfig
from hf_audiolang.models.configuration_slap_audio import SlapAudioConfig
from hf_audiolang.models.configuration_zipformer import ZipformerConfig
from hf_audiolang.models.feature_extraction_log_mel import LogMelFeatureExtractor
from hf_audiolang.models.modeling_audio_classification import (
    CaptionStewForAudioClassification,
    CaptionStewForAudioFrameClassification,
    HtsatForAudioClassification,
    HtsatForAudioFrameClassification,
    M2dClapAudioForAudioClassification,
    M2dClapAudioForAudioFrameClassification,
    M2dClapForAudioClassification,
    M2dClapForAudioFrameClassification,
    MgaClapForAudioClassification,
    MgaClapForAudioFrameClassification,
    NativeAudioForAudioClassification,
    NativeAudioForAudioFrameClassification,
    SlapAudioForAudioClassification,
    SlapAudioForAudioFrameClassification,
    SlapForAudioClassification,
    SlapForAudioFrameClassification,
    ZipformerForAudioClassification,
    ZipformerForAudioFrameClassification,
)
from hf_audiolang.models.modeling_audio_projector import AudioProjector
from hf_audiolang.models.modeling_caption_decoder import CaptionDecoder
from hf_audiolang.models.modeling_captionstew import CaptionStewModel
from hf_audiolang.models.modeling_captionstew_captioning import (
    CaptionStewForConditionalGeneration,
    CaptionStewForPreTraining,
)
from hf_audiolang.models.modeling_htsat import HtsatModel
from hf_audiolang.models.modeling_m2d_clap import M2dClapModel
from hf_audiolang.models.modeling_m2d_clap_audio import M2dClapAudioModel
from hf_audiolang.models.modeling_m2d_clap_pretraining import M2dClapForPreTraining
from hf_audiolang.models.modeling_mga_clap import MgaClapModel
from hf_audiolang.models.modeling_native_audio import NativeAudioModel
from hf_audiolang.models.modeling_slap import SlapForConditionalGeneration, SlapForPreTraining, SlapModel
from hf_audiolang.models.modeling_slap_audio import SlapAudioModel
from hf_audiolang.models.modeling_zipformer import ZipformerModel
from hf_audiolang.models.processing_audiolang import AudioLangProcessor

__version__ = "0.1.0"

register_all()

__all__ = [
    "AudioLangProcessor",
    "AudioProjector",
    "AudioProjectorConfig",
    "CaptionDecoder",
    "CaptionDecoderConfig",
    "CaptionStewConfig",
    "CaptionStewForAudioClassification",
    "CaptionStewForAudioFrameClassification",
    "CaptionStewForConditionalGeneration",
    "CaptionStewForPreTraining",
    "CaptionStewModel",
    "HtsatConfig",
    "HtsatForAudioClassification",
    "HtsatForAudioFrameClassification",
    "HtsatModel",
    "LogMelFeatureExtractor",
    "M2dClapAudioConfig",
    "M2dClapAudioForAudioClassification",
    "M2dClapAudioForAudioFrameClassification",
    "M2dClapAudioModel",
    "M2dClapConfig",
    "M2dClapForAudioClassification",
    "M2dClapForAudioFrameClassification",
    "M2dClapForPreTraining",
    "M2dClapModel",
    "MgaClapConfig",
    "MgaClapForAudioClassification",
    "MgaClapForAudioFrameClassification",
    "MgaClapModel",
    "NativeAudioConfig",
    "NativeAudioForAudioClassification",
    "NativeAudioForAudioFrameClassification",
    "NativeAudioModel",
    "SlapAudioConfig",
    "SlapAudioForAudioClassification",
    "SlapAudioForAudioFrameClassification",
    "SlapAudioModel",
    "SlapConfig",
    "SlapForAudioClassification",
    "SlapForAudioFrameClassification",
    "SlapForConditionalGeneration",
    "SlapForPreTraining",
    "SlapModel",
    "ZipformerConfig",
    "ZipformerForAudioClassification",
    "ZipformerForAudioFrameClassification",
    "ZipformerModel",
    "caption_files",
    "classify_files",
    "detect_files",
    "embed_files",
    "export_with_code",
    "ground_files",
    "search_files",
]
