"""The tutorial's joined query generator, as written, and what is derived from `all()`."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from sqlalchemy import Engine, MetaData, Select, Table, create_engine, func, select
from sqlalchemy.dialects.postgresql import distinct_on

from estudio_core.errors import ConfigurationError, SourceSchemaError
from estudio_core.postgres_url import sqlalchemy_url
from estudio_core.sources.data_loader import KeyRange
from estudio_core.sources.item_meta import PgsqlFileMeta
from estudio_core.sources.pgsql_text_loader import PgsqlTextLoader
from estudio_core.sources.query_generator import QueryGenerator


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
        )  # fmt: skip

    # Override other methods as needed...


RICH_TEXT_2 = "Title: Title 2\nAuthor: First author\nCategory: Cables\nContent: Content 2"


@pytest.fixture
def joined(articles: str) -> PgsqlTextLoader:
    return PgsqlTextLoader(
        connection_string=articles,
        query_generator=ArticleQueryGenerator,
        text_column="rich_text",
        payload_columns=["category_name"],
    )


def test_the_tutorials_generator_loads_items_by_id(joined: PgsqlTextLoader) -> None:
    items = joined.load_items([PgsqlFileMeta(object_id="2"), PgsqlFileMeta(object_id="1")])
    assert [item.id for item in items] == ["2", "1"]
    assert items[0].data == RICH_TEXT_2
    assert items[0].meta.payload == {"category_name": "Cables"}


def test_the_tutorials_generator_counts_and_iterates(joined: PgsqlTextLoader) -> None:
    assert joined.total_count() == 7
    texts = {item.id: item.data for batch in joined.iter_items(batch_size=2) for item in batch.items}
    assert list(texts) == ["1", "2", "4", "5", "10", "11", "100"]
    assert texts["2"] == RICH_TEXT_2
    assert sum(key_range.count for key_range in joined.key_ranges(3)) == 7


def test_a_label_that_the_join_does_not_have_is_named(articles: str) -> None:
    loader = PgsqlTextLoader(articles, ArticleQueryGenerator, text_column="rich_txt")
    with pytest.raises(SourceSchemaError, match=r"no column 'rich_txt'. Did you mean 'rich_text'"):
        loader.check()


def test_a_joined_table_that_does_not_exist_is_named(own_articles: str, execute) -> None:
    execute("DROP TABLE categories CASCADE")
    with pytest.raises(SourceSchemaError, match=r"no table 'categories'.*Legal names: 'articles', 'authors'"):
        PgsqlTextLoader(own_articles, ArticleQueryGenerator, text_column="rich_text").total_count()


class BothTables(QueryGenerator):
    """Two columns called `id`: the first one keeps the name."""

    def __init__(self, engine: Engine) -> None:
        super().__init__("articles", engine)

    def all(self, offset: int, batch_size: int) -> Select:
        authors = Table("authors", MetaData(), autoload_with=self.engine)
        return select(self.table, authors).join(authors, self.table.c.author_id == authors.c.id).limit(batch_size)


def test_columns_of_the_same_name_keep_the_first_ones(articles: str) -> None:
    loader = PgsqlTextLoader(articles, BothTables, payload_columns=["id", "id_1", "name"])
    (item,) = loader.load_items([PgsqlFileMeta(object_id="11")])
    assert item.meta.payload == {"id": 11, "id_1": 2, "name": "Second author"}


class LimitedInside(QueryGenerator):
    """The page stands in an inner query, where no outer limit can be taken away."""

    def all(self, offset: int, batch_size: int) -> Select:
        page = select(self.table.c.id).order_by(self.table.c.id).limit(batch_size).offset(offset).subquery()
        return select(self.table).join(page, page.c.id == self.table.c.id)


def test_a_page_in_an_inner_query_hides_no_rows(articles: str) -> None:
    assert PgsqlTextLoader(articles, LimitedInside, table_name="articles").total_count() == 7


class NewestPerAuthor(QueryGenerator):
    """DISTINCT ON takes its rows by the order."""

    def _order(self):
        return self.table.c.id.desc()

    def all(self, offset: int, batch_size: int) -> Select:
        author = self.table.c.author_id
        query = select(self.table).ext(distinct_on(author)).order_by(author, self._order())
        return query.limit(batch_size).offset(offset)


class OldestPerAuthor(NewestPerAuthor):
    def _order(self):
        return self.table.c.id


@pytest.mark.parametrize(("generator", "ids"), [(NewestPerAuthor, ["11", "100"]), (OldestPerAuthor, ["1", "2"])])
def test_distinct_on_keeps_its_order(articles: str, generator: type, ids: list[str]) -> None:
    assert list(PgsqlTextLoader(articles, generator, table_name="articles").iter_ids()) == ids


class LabelledTwice(QueryGenerator):
    def all(self, offset: int, batch_size: int) -> Select:
        return select(self.table.c.id, self.table.c.title.label("content"), self.table.c.content.label("content"))


class NotAQuery(QueryGenerator):
    def all(self, offset: int, batch_size: int) -> Select:
        return "SELECT * FROM articles"  # type: ignore[return-value]  # what the test is about


@pytest.mark.parametrize(("generator", "message"), [(LabelledTwice, "labels two columns"), (NotAQuery, "returned str")])
def test_a_generator_whose_query_cannot_be_used_is_named(articles: str, generator: type, message: str) -> None:
    loader = PgsqlTextLoader(articles, generator, table_name="articles")
    with pytest.raises(ConfigurationError, match=f"{generator.__name__}.*{message}"):
        loader.check()


class OwnFetchAll(QueryGenerator):
    """An overridden query by id gets keys of the column's type."""

    def __init__(self, engine: Engine) -> None:
        super().__init__("articles", engine)

    def fetch_all(self, row_ids) -> Select:
        keys = list(row_ids)
        assert all(isinstance(key, int) for key in keys)
        return select(self.table).where(self.table.c.id.in_(keys))


class FetchAllWithoutText(OwnFetchAll):
    def fetch_all(self, row_ids) -> Select:
        return select(self.table.c.id)


def test_an_overridden_query_by_id_is_used(articles: str) -> None:
    found = PgsqlTextLoader(articles, OwnFetchAll).find_items([PgsqlFileMeta(object_id=i) for i in ("2", "x", "3")])
    assert [item.data for item in found.items] == ["Content 2"]
    assert found.missing == ["x", "3"]
    with pytest.raises(SourceSchemaError, match=r"fetch_all\(\) selects no \['content'\]"):
        PgsqlTextLoader(articles, FetchAllWithoutText).find_items([PgsqlFileMeta(object_id=1)])


@pytest.fixture
def engine(articles: str):
    engine = create_engine(sqlalchemy_url(articles))
    yield engine
    engine.dispose()


def test_the_queries_of_one_table(engine: Engine) -> None:
    generator = QueryGenerator("articles", engine)
    with engine.connect() as connection:

        def ids(query: Select) -> list[int]:
            return [row.id for row in connection.execute(query)]

        assert ids(generator.all(2, 3)) == [4, 5, 10]
        assert ids(generator.one("10")) == ids(generator.one(10)) == [10]
        assert sorted(ids(generator.fetch_all(["100", 2, "3"]))) == [2, 100]
        assert ids(generator.after("5", 2)) == [10, 11]
        assert ids(generator.after(None, until="4")) == [1, 2, 4]
        assert connection.scalar(generator.count()) == 7
    assert not {"ORDER", "LIMIT", "OFFSET"} & set(str(generator.count()).split())


def test_text_keys_are_ordered_and_compared_by_bytes(odd_keys: str) -> None:
    engine = create_engine(sqlalchemy_url(odd_keys))
    query = str(QueryGenerator("things", engine).after("a", until="z").compile(engine))
    engine.dispose()
    assert query.count('(items.id COLLATE "C") >') == query.count('(items.id COLLATE "C") <=') == 1
    assert 'ORDER BY items.id COLLATE "C"' in query


def test_ranges_of_integer_keys_use_the_index(own_articles: str, execute) -> None:
    execute("INSERT INTO articles (id, content) SELECT i, 'x' FROM generate_series(1000, 40000) AS i")
    execute("ANALYZE articles")
    engine = create_engine(sqlalchemy_url(own_articles))
    query = QueryGenerator("articles", engine).after("20000", limit=10)
    with engine.connect() as connection:
        statement = query.compile(engine, compile_kwargs={"literal_binds": True})
        plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {statement}").scalars())
    assert "Index Scan using articles_pkey" in plan
    assert "Sort" not in plan
    engine.dispose()


def test_class_instance_and_callable_generators_are_accepted(articles: str, engine: Engine) -> None:
    instance = QueryGenerator("articles", engine)
    for loader in (
        PgsqlTextLoader(articles, QueryGenerator, table_name="articles"),
        PgsqlTextLoader(articles, instance),
        PgsqlTextLoader(query_generator=instance),  # the database of its engine
        PgsqlTextLoader(articles, lambda engine: QueryGenerator("articles", engine)),
        PgsqlTextLoader(articles, ArticleQueryGenerator),
    ):
        assert loader.total_count() == 7
        loader.close()


def test_the_id_column_of_the_loader_goes_before_the_generators(articles: str, engine: Engine) -> None:
    instance = QueryGenerator("articles", engine)
    assert instance.key_type.kind == "integer"
    for generator in (ArticleQueryGenerator, instance, lambda engine: QueryGenerator("articles", engine)):
        loader = PgsqlTextLoader(articles, generator, id_column="title")
        assert [asdict(r) for r in loader.key_ranges(1)] == [asdict(KeyRange(None, None, 7))]
        assert "Title 100" in set(loader.iter_ids())
    assert instance.id_column == "id"


def test_no_known_table_is_an_error_that_names_the_argument() -> None:
    with pytest.raises(ConfigurationError, match="table_name='your_table'"):
        PgsqlTextLoader("postgresql://reader@nowhere/shop", QueryGenerator, text_column="content")


@pytest.mark.parametrize("wrong", ["articles", dict, 7, None])
def test_other_things_are_no_query_generators(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match="query_generator="):
        PgsqlTextLoader("postgresql://reader@nowhere/shop", wrong, table_name="articles")


def test_a_callable_has_to_return_a_generator(articles: str) -> None:
    with pytest.raises(ConfigurationError, match="query_generator='articles'"):
        PgsqlTextLoader(articles, lambda engine: "articles").check()


def test_a_table_name_other_than_the_generators_is_refused(articles: str) -> None:
    with pytest.raises(ConfigurationError, match="'authors' is given, but ArticleQueryGenerator reads 'articles'"):
        PgsqlTextLoader(articles, ArticleQueryGenerator, table_name="authors", text_column="rich_text").check()


def test_keys_are_a_list(articles: str) -> None:
    generator = QueryGenerator("articles", create_engine(sqlalchemy_url(articles)))
    with pytest.raises(ConfigurationError, match="row_ids is a list of keys; given '12'"):
        generator.fetch_all("12")
