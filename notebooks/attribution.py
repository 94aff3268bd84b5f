import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Attribution")

with app.setup:
    import altair as alt
    import marimo as mo

    from common.settings import load_settings
    from serve.published import open_published

    published = open_published(load_settings())


@app.cell(hide_code=True)
def _():
    mo.md(f"""
    # Attribution: which click led to the checkout?

    `fct_checkout_attribution` has one row per checkout. Its **first click** is the earliest click of the same user on
    the same product within the attribution window before the checkout (`attribution_window_seconds` in
    `dbt_project.yml`; both ends of the window are included). A checkout without a click stays in the table as
    unattributed, so shares are shares of all checkouts.

    This notebook reads the marts that the last successful build published (`{published.version}`).
    """)
    return


@app.cell
def _():
    [_settings] = published.query("from intermediate.int_settings").to_pylist()
    window_seconds = _settings["attribution_window_seconds"]
    mo.md(f"The table was built with a window of **{window_seconds} seconds**.")
    return (window_seconds,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## How much is attributed
    """)
    return


@app.cell
def _():
    daily = published.query("""
        select
            event_date as day,
            case when is_attributed then 'attributed' else 'no click' end as attribution,
            count(*) as checkouts,
            sum(total_amount)::double as amount
        from analytics.fct_checkout_attribution
        group by all
        order by day
    """)
    _day = (
        alt.Chart(daily).mark_bar().encode(x=alt.X("day:T", title=None), color=alt.Color("attribution:N", title=None))
    )
    alt.hconcat(_day.encode(y="checkouts:Q"), _day.encode(y=alt.Y("amount:Q", title="amount, in the shop's currency")))
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## How long people take from the first click
    """)
    return


@app.cell
def _():
    delays = published.query("""
        select
            floor(seconds_to_checkout / 60)::int as minutes,
            least(clicks_in_window, 4) as clicks,
            count(*) as checkouts
        from analytics.fct_checkout_attribution
        where is_attributed
        group by all
    """)
    alt.Chart(delays).mark_bar().encode(
        x=alt.X("minutes:Q", title="minutes from the first click to the checkout"),
        y="sum(checkouts):Q",
        color=alt.Color("clicks:O", title="clicks (4: or more)"),
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## The effect of other windows

    The length of the window is your choice. A checkout is attributed if its *last* click is within the window. So one
    pass over the clicks gives the result for every shorter and longer window, without another build.
    """)
    return


@app.cell
def _(window_seconds):
    windows = published.query(
        """
        with last_clicks as (
            select checkouts.event_key, epoch(checkouts.event_at - max(clicks.event_at)) as seconds
            from analytics.fct_events as checkouts
            left join analytics.fct_events as clicks
                on clicks.stream = 'clicks'
                and clicks.user_id = checkouts.user_id
                and clicks.product_id = checkouts.product_id
                and clicks.event_at <= checkouts.event_at
            where checkouts.stream = 'checkouts'
            group by checkouts.event_key, checkouts.event_at
        )

        select minutes, avg(case when seconds <= minutes * 60 then 1.0 else 0.0 end) as attributed_share
        from last_clicks
        cross join (select unnest([1, 2, 5, 10, 15, 30, 60, 120, 360, 1440, $window / 60]) as minutes)
        group by minutes
        order by minutes
        """,
        {"window": window_seconds},
    )
    alt.Chart(windows).mark_line(point=True).encode(
        x=alt.X("minutes:Q", title="window in minutes").scale(type="log"),
        y=alt.Y("attributed_share:Q", title="attributed", axis=alt.Axis(format="%")).scale(domain=[0, 1]),
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Products sold after a click
    """)
    return


@app.cell
def _():
    products = published.query("""
        select
            coalesce(products.name, product_id) as product,
            count(*) as checkouts,
            avg(cast(is_attributed as double)) as attributed_share,
            sum(total_amount)::double as amount
        from analytics.fct_checkout_attribution
        left join analytics.dim_products as products using (product_id)
        group by product
        order by checkouts desc
        limit 15
    """)
    alt.Chart(products).mark_circle(size=120).encode(
        x="checkouts:Q",
        y=alt.Y("attributed_share:Q", axis=alt.Axis(format="%"), title="attributed").scale(zero=False),
        size="amount:Q",
        tooltip=["product", "checkouts", alt.Tooltip("attributed_share", format=".0%"), "amount"],
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Why it is exact

    Clicks and checkouts arrive in separate streams, and a click can arrive after the checkout that it led to. A join of
    the messages that had arrived by the time of the checkout loses such clicks. Here a late click updates the
    attribution of the checkouts in its window:
    """)
    return


@app.cell
def _():
    late_clicks = published.query("""
        select
            count(*) as attributed_checkouts,
            count(case when clicks.published_at > checkouts.published_at then 1 end) as click_published_after_checkout
        from analytics.fct_checkout_attribution as attribution
        inner join analytics.fct_events as checkouts using (event_key)
        inner join analytics.fct_events as clicks
            on clicks.stream = 'clicks'
            and clicks.event_id = attribution.first_click_id
            and clicks.event_at = attribution.first_click_at
    """)
    late_clicks
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    The check on this warehouse: a direct query of the definition over the facts gives every checkout the same first
    click and the same number of clicks.
    """)
    return


@app.cell
def _(window_seconds):
    differences = published.query(
        """
        with definition as (
            select
                checkouts.event_key,
                min(clicks.event_at) as first_click_at,
                count(clicks.event_key) as clicks_in_window
            from analytics.fct_events as checkouts
            left join analytics.fct_events as clicks
                on clicks.stream = 'clicks'
                and clicks.user_id = checkouts.user_id
                and clicks.product_id = checkouts.product_id
                and clicks.event_at between checkouts.event_at - to_seconds($window) and checkouts.event_at
            where checkouts.stream = 'checkouts'
            group by checkouts.event_key
        )

        select event_key, definition.first_click_at, mart.first_click_at as first_click_at_of_the_mart
        from definition
        full join analytics.fct_checkout_attribution as mart using (event_key)
        where definition.first_click_at is distinct from mart.first_click_at
            or definition.clicks_in_window is distinct from mart.clicks_in_window
        """,
        {"window": window_seconds},
    )
    assert differences.num_rows == 0, differences
    mo.md(f"Checkouts that differ: **{differences.num_rows}**")
    return


if __name__ == "__main__":
    app.run()
