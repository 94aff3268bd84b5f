import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Who changed what")

with app.setup:
    import datetime

    import altair as alt
    import marimo as mo

    from common.settings import load_settings
    from serve.published import open_published

    published = open_published(load_settings())


@app.cell(hide_code=True)
def _():
    mo.md(f"""
    # Who changed what, and when

    Users, products and posts are change logs, with one message per change. `dim_users_history`,
    `dim_products_history` and `dim_posts_history` are slowly changing dimensions of type 2: one row per **version**,
    valid from `valid_from` (inclusive) to `valid_to` (exclusive; 9999-12-31 for the last). At any time since the
    creation of an entity exactly one version is valid, so you can join the version *as of* an event:

    ```sql
    on history.user_id = events.user_id
        and events.event_at >= history.valid_from and events.event_at < history.valid_to
    ```

    This notebook reads the marts that the last successful build published (`{published.version}`).
    """)
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## What did a product cost on a day?
    """)
    return


@app.cell
def _():
    _products = published.query("""
        select product_id, max(name) as name, max(updated_at)::date as last_change
        from analytics.dim_products_history
        group by product_id
        order by count(distinct price) desc, product_id
        limit 20
    """).to_pylist()
    product = mo.ui.dropdown(
        {f"{one['name']} ({one['product_id']})": one["product_id"] for one in _products},
        value=f"{_products[0]['name']} ({_products[0]['product_id']})",
        label="product",
    )
    day = mo.ui.date(value=_products[0]["last_change"], label="at the beginning of")
    mo.hstack([product, day], justify="start")
    return day, product


@app.cell
def _(day, product):
    price_then = published.query(
        """
        select name, price, version_number, valid_from, valid_to, is_deleted
        from analytics.dim_products_history
        where product_id = $product and $instant >= valid_from and $instant < valid_to
        """,
        {"product": product.value, "instant": datetime.datetime.combine(day.value, datetime.time())},
    )
    price_then
    return


@app.cell
def _(product):
    prices = published.query(
        """
        select valid_from as changed_at, price::double as price, version_number
        from analytics.dim_products_history
        where product_id = $product and not is_tombstone
        order by version_number
        """,
        {"product": product.value},
    )
    alt.Chart(prices, title=product.selected_key).mark_line(interpolate="step-after", point=True).encode(
        x=alt.X("changed_at:T", title=None),
        y=alt.Y("price:Q").scale(zero=False),
        tooltip=["version_number", "price", "changed_at"],
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Where did users live when it happened?

    Users move. A join of events to the *current* users (`dim_users`) also moves their past events, and loses deleted
    users. A join to the version that was valid at the time of the event does neither.
    """)
    return


@app.cell
def _():
    regions = published.query("""
        with located as (
            select
                coalesce(countries_then.region, 'unknown') as region_then,
                coalesce(users_now.region, 'unknown') as region_now
            from analytics.fct_events as events
            left join analytics.dim_users_history as users_then
                on events.user_id = users_then.user_id
                and events.event_at >= users_then.valid_from and events.event_at < users_then.valid_to
            left join analytics.dim_countries as countries_then on users_then.country_code = countries_then.country_code
            left join analytics.dim_users as users_now on events.user_id = users_now.user_id
            where events.user_id is not null
        )

        select 'as of the event' as joined, region_then as region, count(*) as events,
            count(case when region_then != region_now then 1 end) as placed_elsewhere
        from located group by region
        union all
        select 'as they are now', region_now, count(*), count(case when region_then != region_now then 1 end)
        from located group by region_now
    """)
    alt.Chart(regions).mark_bar().encode(
        x="events:Q",
        y=alt.Y("region:N", title=None),
        yOffset="joined:N",
        color=alt.Color("joined:N", title=None),
        tooltip=["region", "joined", "events", "placed_elsewhere"],
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## What was deleted?

    A deletion is a version with `is_deleted`. It comes from a message with `deleted_at`, or from a Kafka tombstone.
    Deleted users are not in `dim_users`; their history and their events remain.
    """)
    return


@app.cell
def _():
    deleted = published.query("""
        select
            'user' as entity,
            user_id as id,
            valid_from as deleted_at,
            is_tombstone,
            version_number - 1 as versions_before
        from analytics.dim_users_history where is_current and is_deleted
        union all
        select 'product', product_id, valid_from, is_tombstone, version_number - 1
        from analytics.dim_products_history where is_current and is_deleted
        union all
        select 'post', post_id, valid_from, is_tombstone, version_number - 1
        from analytics.dim_posts_history where is_current and is_deleted
        order by deleted_at
    """)
    deleted
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## What if a version arrives late?

    A version is valid from the time of the change, even if its message is published later. A report between the two
    used the previous version. These are the events for which such a report was wrong, and for which the history is
    right since the version landed:
    """)
    return


@app.cell
def _():
    late_versions = published.query("""
        select
            history.user_id,
            history.version_number,
            history.valid_from as changed_at,
            history.published_at as became_known_at,
            count(*) as events_in_between
        from analytics.dim_users_history as history
        inner join analytics.fct_events as events
            on history.user_id = events.user_id
            and events.event_at >= history.valid_from and events.event_at < history.valid_to
            and events.event_at < history.published_at
        where history.version_number > 1
        group by all
        order by events_in_between desc
        limit 20
    """)
    late_versions
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Why it is exact

    The order of arrival does not matter: if a version arrives, all versions of its entity are sequenced again. The
    check on this warehouse: each version ends where the next begins, one is the last, and no event is in two versions.
    """)
    return


@app.cell
def _():
    [check] = published.query("""
        with versions as (
            select 'user' as entity, user_id as id, valid_from, valid_to, is_current from analytics.dim_users_history
            union all
            select 'product', product_id, valid_from, valid_to, is_current from analytics.dim_products_history
            union all
            select 'post', post_id, valid_from, valid_to, is_current from analytics.dim_posts_history
        ),

        neighbours as (
            select *, lead(valid_from) over (partition by entity, id order by valid_from, valid_to) as next_valid_from
            from versions
        )

        select
            count(case when coalesce(next_valid_from, timestamp '9999-12-31') != valid_to then 1 end)
                as holes_or_overlaps,
            count(distinct (entity, id)) - count(case when is_current then 1 end) as without_one_current
        from neighbours
    """).to_pylist()
    assert check == {"holes_or_overlaps": 0, "without_one_current": 0}, check
    check
    return


if __name__ == "__main__":
    app.run()
