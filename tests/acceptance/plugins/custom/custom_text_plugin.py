"""The tutorial's plugin: its code as written, with our import paths and the documented corrections.

Corrections: the loader is told its table (`table_name="articles"`), and the connection comes from the environment,
as the tutorial's own section on configuration has it. `CustomArticlesPlugin` adds its three customisations.
"""

import os
from typing import List

from sentence_transformers import SentenceTransformer
from sqlalchemy import Engine, MetaData, Select, Table, func, select
from transformers import AutoTokenizer

from estudio_core.clickstream.converter import ClickstreamSessionConverter
from estudio_core.clickstream.query_retriever import QueryRetriever
from estudio_core.clickstream.sessions import SessionWithEvents
from estudio_core.clickstream.splitter import TrainTestSplitter
from estudio_core.clickstream.text_query_retriever import TextQueryRetriever
from estudio_core.context import context
from estudio_core.plugin.tutorial import FineTuningSettings
from estudio_core.experiments.initial_params.clip import INITIAL_PARAMS
from estudio_core.experiments.manager import ExperimentsManager
from estudio_core.experiments.metrics_accumulator import MetricsAccumulator
from estudio_core.improvement.improvement_input import ImprovementInput
from estudio_core.improvement.torch_based_adjuster import TorchBasedAdjuster
from estudio_core.improvement.vectors_adjuster import VectorsAdjuster
from estudio_core.inference.clients import TextToTextE5TritonClientFactory, TritonClientFactory
from estudio_core.models.embedding_model import TextToTextE5Model
from estudio_core.plugin.tutorial import (
    DatasetFieldsNormalizer,
    FineTuningBuilder,
    FineTuningMethod,
    ItemsDatasetDictPreprocessor,
    PluginMeta,
    TextItemSetManager,
    prepare_data,
)
from estudio_core.preprocessing.augmentations import (
    AugmentationsComposition,
    AugmentationWithRandomSelection,
    ChangeCases,
    ItemsSetAugmentationApplier,
    Misspellings,
)
from estudio_core.preprocessing.splitters import DummySentenceSplitter, ItemsSetSplitter, TokenGroupTextSplitter
from estudio_core.settings import settings
from estudio_core.sources.data_loader import DataLoader
from estudio_core.sources.item_meta import PgsqlFileMeta
from estudio_core.sources.pgsql_text_loader import PgsqlTextLoader
from estudio_core.sources.query_generator import QueryGenerator
from estudio_core.vectordb.index_info import MetricAggregationType, MetricType, SearchIndexInfo
from estudio_core.vectordb.optimization import Optimization
from lightning_modules.losses import CosineProbMarginRankingLoss


class ArticleQueryGenerator(QueryGenerator):
    """Custom query generator for articles with joined author and category data."""
    
    def __init__(self, engine: Engine) -> None:
        super().__init__("articles", engine)
        self.metadata = MetaData()
        self.articles_table = None
        self.authors_table = None
        self.categories_table = None
    
    def _init_tables(self):
        """Initialize table references."""
        if self.articles_table is None:
            # Load tables with reflection
            self.articles_table = Table(self.table_name, self.metadata, autoload_with=self.engine)
            self.authors_table = Table("authors", self.metadata, autoload_with=self.engine)
            self.categories_table = Table("categories", self.metadata, autoload_with=self.engine)
    
    def all(self, offset: int, batch_size: int) -> Select:
        """Join articles with authors and categories."""
        self._init_tables()
        return (
            select(
                self.articles_table,
                self.authors_table.c.name.label("author_name"),
                self.categories_table.c.name.label("category_name"),
                # Create a rich text field combining multiple columns
                func.concat(
                    "Title: ", self.articles_table.c.title, "\n",
                    "Author: ", self.authors_table.c.name, "\n",
                    "Category: ", self.categories_table.c.name, "\n",
                    "Content: ", self.articles_table.c.content
                ).label("rich_text")
            )
            .join(
                self.authors_table,
                self.articles_table.c.author_id == self.authors_table.c.id
            )
            .join(
                self.categories_table,
                self.articles_table.c.category_id == self.categories_table.c.id
            )
            .order_by(self.articles_table.c.id)
            .limit(batch_size)
            .offset(offset)
        )
    
    # Override other methods as needed...


class SynonymReplacement(AugmentationWithRandomSelection):
    """Replace words with synonyms."""
    
    def __init__(self, selection_size: float = 1.0):
        super(SynonymReplacement, self).__init__(selection_size)
        # Initialize synonym dictionary
        self.synonyms = {
            "good": ["great", "excellent", "fine", "positive"],
            "bad": ["poor", "terrible", "awful", "negative"],
            # Add more synonyms...
        }
    
    def _raw_transform(self, object: str) -> List[str]:
        """Apply synonym replacement to create variations."""
        import random
        
        # Original text is always included
        results = [object]
        
        # Create 3 variations with different synonym replacements
        for _ in range(3):
            text = object
            # Apply replacements with a certain probability
            for word, synonyms in self.synonyms.items():
                if word in text and random.random() < 0.7:
                    text = text.replace(word, random.choice(synonyms))
            results.append(text)
        
        return results


class AdvancedVectorAdjuster(VectorsAdjuster):
    """Custom vector adjuster with advanced features."""
    
    def __init__(self, learning_rate: float = 0.1, decay_factor: float = 0.9):
        self.learning_rate = learning_rate
        self.decay_factor = decay_factor
    
    def adjust_vectors(
        self, data_for_improvement: List[ImprovementInput]
    ) -> List[ImprovementInput]:
        """Adjust vectors with a custom logic."""
        for improvement_input in data_for_improvement:
            query_vector = improvement_input.query.vector
            
            # Adjust clicked items to be closer to query
            for clicked in improvement_input.clicked_elements:
                # Move vector toward query with learning rate
                clicked.vector = clicked.vector + self.learning_rate * (
                    query_vector - clicked.vector
                )
            
            # Adjust non-clicked items to be further from query
            for non_clicked in improvement_input.non_clicked_elements:
                # Move vector away from query with decay factor
                non_clicked.vector = non_clicked.vector - self.learning_rate * self.decay_factor * (
                    query_vector - non_clicked.vector
                )
        
        return data_for_improvement


class CustomTextPlugin(FineTuningMethod):
    """
    Custom plugin for text embeddings using PostgreSQL data.
    
    This plugin integrates with PostgreSQL data sources and uses E5 models
    for text embedding with sentence-level tokenization.
    """
    
    meta = PluginMeta(
        name="CustomTextPlugin",  # Used in configuration and registration
        version="0.1.0",          # For versioning and tracking
        description="Custom text embedding plugin using PostgreSQL data sources"
    )

    def __init__(self):
        """Initialize the plugin with all required components."""
    
        # Step 1: Define embedding model and tokenizer
        self.model_name = "intfloat/multilingual-e5-base"
        self.inference_client_factory = None
    
        # Step 2: Configure PostgreSQL connection
        connection_string = os.environ.get(
            "POSTGRES_CONNECTION_STRING",
            "postgresql://username:password@hostname:5432/database"
        )
    
        # Step 3: Set up data loader
        self.data_loader = PgsqlTextLoader(
            connection_string=connection_string,
            query_generator=QueryGenerator,  # Default query generator for single table
            text_column="content",           # Column containing text data
            table_name="articles",
        )
    
        # Step 4: Configure query retriever and session converter
        self.retriever = TextQueryRetriever()
        self.sessions_converter = ClickstreamSessionConverter(
            item_type=PgsqlFileMeta
        )
    
        # Step 5: Set up train/test splitter
        self.splitter = TrainTestSplitter()
    
        # Step 6: Configure field normalization
        self.normalizer = DatasetFieldsNormalizer("item", "item_id")
    
        # Step 7: Set up text processing pipeline
        self.items_set_manager = TextItemSetManager(
            self.normalizer,
            items_set_splitter=ItemsSetSplitter(
                TokenGroupTextSplitter(
                    tokenizer=AutoTokenizer.from_pretrained(self.model_name),
                    blocks_splitter=DummySentenceSplitter(),
                    max_tokens=512,
                )
            ),
            augmenter=ItemsSetAugmentationApplier(
                AugmentationsComposition([
                    ChangeCases(5),      # Case variation augmentations
                    Misspellings(5),     # Misspelling augmentations
                ])
            ),
            do_augment_test=False,  # Don't augment test data
        )
    
        # Step 8: Configure training metrics
        self.accumulators = [
            MetricsAccumulator(
                "train_loss",
                calc_mean=True,
                calc_sliding=True,
                calc_min=True,
                calc_max=True,
            ),
            MetricsAccumulator(
                "train_not_irrelevant_dist_shift",
                calc_mean=True,
                calc_sliding=True,
                calc_min=True,
                calc_max=True,
            ),
            MetricsAccumulator(
                "train_irrelevant_dist_shift",
                calc_mean=True,
                calc_sliding=True,
                calc_min=True,
                calc_max=True,
            ),
            MetricsAccumulator("test_loss"),
            MetricsAccumulator("test_not_irrelevant_dist_shift"),
            MetricsAccumulator("test_irrelevant_dist_shift"),
        ]
    
        # Step 9: Set up experiment tracking
        self.manager = ExperimentsManager.from_wrapper(
            wrapper=context.mlflow_client,
            main_metric="test_not_irrelevant_dist_shift",
            plugin_name=self.meta.name,
            accumulators=self.accumulators,
        )
    
        # Step 10: Configure hyperparameter search
        self.initial_params = INITIAL_PARAMS
        self.initial_params.update({
            "not_irrelevant_only": [True],
            "negative_downsampling": [0.5],
            "examples_order": [[11]],
            "batch_size": [16, 32],  # Try both batch sizes
            "learning_rate": [1e-5, 3e-5],  # Try both learning rates
        })
    
        # Step 11: Set up training settings
        self.settings = FineTuningSettings(
            loss_func=CosineProbMarginRankingLoss(),
            step_size=35,
            test_each_n_sessions=0.5,
            num_epochs=3,
        )

    def upload_initial_model(self) -> None:
        """
        Download and prepare the E5 model for training.
        This is the base model that will be fine-tuned.
        """
        model = context.model_downloader.download_model(
            model_name=self.model_name,
            download_fn=lambda mn: SentenceTransformer(mn),
        )
        model = TextToTextE5Model(model)
        self.manager.upload_initial_model(model)
    
        # Free memory
        import gc
        import torch
        del model
        gc.collect()
        torch.cuda.empty_cache()

    def get_query_retriever(self) -> QueryRetriever:
        """
        Return the query retriever for extracting search queries from session data.
        """
        return self.retriever

    def get_items_preprocessor(self) -> ItemsDatasetDictPreprocessor:
        """
        Return the preprocessor that handles text tokenization and preparation.
        """
        return self.items_set_manager.preprocessor

    def get_data_loader(self) -> DataLoader:
        """
        Return the PostgreSQL loader that fetches text content.
        """
        return self.data_loader

    def get_manager(self) -> ExperimentsManager:
        """
        Return the experiment manager for tracking training runs.
        """
        return self.manager

    def get_inference_client_factory(self) -> TritonClientFactory:
        """
        Return the Triton client factory for model inference.
        """
        if self.inference_client_factory is None:
            self.inference_client_factory = TextToTextE5TritonClientFactory(
                f"{settings.INFERENCE_HOST}:{settings.INFERENCE_GRPC_PORT}",
                plugin_name=self.meta.name,
                preprocessor=self.items_set_manager.preprocessor,
                model_name=self.model_name,
            )
        return self.inference_client_factory

    def get_fine_tuning_builder(
        self, clickstream: List[SessionWithEvents]
    ) -> FineTuningBuilder:
        """
        Prepare data and configure the training process.
    
        This method transforms raw clickstream data into a format suitable for
        training and creates a builder with the complete training configuration.
        """
        # Transform clickstream data into training examples
        ranking_dataset = prepare_data(
            clickstream,
            self.sessions_converter,
            self.splitter,
            self.retriever,
            self.data_loader,
            self.items_set_manager,
        )
    
        # Create and return the builder with complete configuration
        return FineTuningBuilder(
            data_loader=self.data_loader,
            query_retriever=self.retriever,
            clickstream_sessions_converter=self.sessions_converter,
            clickstream_sessions_splitter=self.splitter,
            dataset_fields_normalizer=self.normalizer,
            items_set_manager=self.items_set_manager,
            accumulators=self.accumulators,
            experiments_manager=self.manager,
            fine_tuning_settings=self.settings,
            initial_params=self.initial_params,
            ranking_data=ranking_dataset,
            initial_max_evals=2,  # Number of hyperparameter combinations to try
        )

    def get_search_index_info(self) -> SearchIndexInfo:
        """
        Define the vector database configuration.
    
        This method specifies how vectors will be stored in the database
        and how similarity will be calculated during search.
        """
        return SearchIndexInfo(
            dimensions=768,  # E5-base embedding size
            metric_type=MetricType.COSINE,  # Use cosine similarity
            metric_aggregation_type=MetricAggregationType.AVG,  # Average chunks
        )

    def get_vectors_adjuster(self) -> VectorsAdjuster:
        """
        Define the vector adjustment logic for post-training improvements.
    
        This method configures how vectors will be adjusted based on user feedback
        without requiring full retraining.
        """
        return TorchBasedAdjuster(
            adjustment_rate=0.1,  # Learning rate for adjustments
            search_index_info=self.get_search_index_info(),
        )

    def get_vectordb_optimizations(self) -> List[Optimization]:
        """
        Define any vector database optimizations.
    
        This method can specify optimizations like index creation or
        vacuum operations. We're returning an empty list for simplicity.
        """
        return []


class CustomArticlesPlugin(CustomTextPlugin):
    """The plugin with the tutorial's three customisations."""

    meta = PluginMeta(
        name="CustomArticlesPlugin",
        version="0.1.0",
        description="Articles with author and category"
    )

    def __init__(self):
        super().__init__()
        self.data_loader = PgsqlTextLoader(
            connection_string=os.environ["POSTGRES_CONNECTION_STRING"],
            query_generator=ArticleQueryGenerator,  # Use custom query generator
            text_column="rich_text"  # Use the concatenated text column
        )
        self.items_set_manager = TextItemSetManager(
            self.normalizer,
            items_set_splitter=ItemsSetSplitter(
                TokenGroupTextSplitter(
                    tokenizer=AutoTokenizer.from_pretrained(self.model_name),
                    blocks_splitter=DummySentenceSplitter(),
                    max_tokens=512,
                )
            ),
            augmenter=ItemsSetAugmentationApplier(
                AugmentationsComposition([
                    ChangeCases(5),            # Case variation augmentations
                    Misspellings(5),           # Misspelling augmentations
                    SynonymReplacement(5),     # Add your custom augmentation
                ])
            ),
            do_augment_test=False,
        )

    def get_vectors_adjuster(self) -> VectorsAdjuster:
        """Return a custom vector adjuster."""
        return AdvancedVectorAdjuster(
            learning_rate=0.1,
            decay_factor=0.8
        )
