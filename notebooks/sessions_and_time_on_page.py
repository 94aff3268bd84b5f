import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="Sessions and time on page")

with app.setup:
    import altair as alt
    import marimo as mo

    from common.settings import load_settings
    from serve.published import open_published

    published = open_published(load_settings())


@app.cell(hide_code=True)
def _():
    mo.md(f"""
    # Sessions and time on page

    A **session** is a series of page views of one visitor without a pause longer than the session gap
    (`session_gap_seconds` in `dbt_project.yml`; a pause of exactly that length does not end a session). **Time on
    page** is the time to the next page view of the session. For the last page it is the engagement time that the event
    reports; without one it is *unknown*, not 0.

    `fct_page_views` has one row per page view, with its number in the session; `fct_sessions` has one row per session.

    This notebook reads the marts that the last successful build published (`{published.version}`), so
    it never blocks a build. `published.query(...)` runs any SQL; pass values as `$name`.
    """)
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Sessions per day

    A session counts on the day on which it began, even if it continues after midnight, so the days add up to the total.
    """)
    return


@app.cell
def _():
    sessions_daily = published.query("""
        select
            cast(session_started_at as date) as day,
            count(*) as sessions,
            avg(cast(is_bounce as double)) as bounce_rate,
            avg(page_views) as pages_per_session
        from analytics.fct_sessions
        group by day
        order by day
    """)
    sessions_daily
    return (sessions_daily,)


@app.cell
def _(sessions_daily):
    _day = alt.Chart(sessions_daily).encode(x=alt.X("day:T", title=None))
    alt.hconcat(
        _day.mark_bar().encode(y=alt.Y("sessions:Q", title="sessions")),
        _day.mark_line(point=True).encode(
            y=alt.Y("bounce_rate:Q", title="bounce rate", axis=alt.Axis(format="%")).scale(domainMin=0)
        ),
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Length of sessions

    Most sessions are short, which an average does not show.
    """)
    return


@app.cell
def _():
    session_lengths = published.query("""
        select least(page_views, 15) as pages, count(*) as sessions, median(duration_seconds)::double as seconds
        from analytics.fct_sessions
        group by pages
        order by pages
    """)
    alt.Chart(session_lengths).mark_bar().encode(
        x=alt.X("pages:O", title="page views of the session (15: or more)"),
        y="sessions:Q",
        tooltip=["pages", "sessions", alt.Tooltip("seconds", title="median duration, s")],
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Where the time on a page comes from

    Per page: the number of page views whose time comes from the next page or from the event's engagement time, or is
    unknown. A page on which many visits end, and whose events report no engagement, has few known times. Check this
    before you compare two pages.
    """)
    return


@app.cell
def _():
    sources = published.query("""
        select page_title, coalesce(time_on_page_source, 'unknown') as source, count(*) as page_views
        from analytics.fct_page_views
        where page_title in (
            select page_title from analytics.fct_page_views group by page_title order by count(*) desc limit 10
        )
        group by all
    """)
    alt.Chart(sources).mark_bar().encode(
        x="page_views:Q", y=alt.Y("page_title:N", sort="-x", title=None), color="source:N"
    )
    return


@app.cell
def _():
    pages = published.query("""
        select page_title from analytics.fct_page_views where time_on_page_seconds is not null
        group by page_title order by count(*) desc limit 50
    """)["page_title"].to_pylist()
    page = mo.ui.dropdown(pages, value=pages[0], label="page")
    page
    return (page,)


@app.cell
def _(page):
    times = published.query(
        """
        select time_on_page_seconds::double as seconds, time_on_page_source as source
        from analytics.fct_page_views
        where page_title = $page and time_on_page_seconds is not null
        """,
        {"page": page.value},
    )
    alt.Chart(times.slice(0, 5_000), title=page.value).mark_bar().encode(
        x=alt.X("seconds:Q", bin=alt.Bin(maxbins=30), title="seconds on the page"), y="count()", color="source:N"
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Why it is exact

    Page views arrive late. Pipelines that look back over a few hours or days either miss them or split their sessions.
    Here a late page view causes exactly the sessions within a gap of it to be computed again. The share of the table
    that this affects:
    """)
    return


@app.cell
def _():
    lateness = published.query("""
        select
            case
                when latency_seconds <= 60 then '1 within a minute'
                when latency_seconds <= 3600 then '2 within an hour'
                when latency_seconds <= 86400 then '3 within a day'
                else '4 later'
            end as arrived,
            count(*) as page_views,
            count(distinct page_views.session_id) as sessions
        from analytics.fct_page_views as page_views
        inner join analytics.fct_events as events using (event_key)
        group by arrived
        order by arrived
    """)
    lateness
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    The check on this warehouse: a new session starts exactly where the pause between two page views of a visitor is
    longer than the gap; every page view is in one session; and every session has one first page view.
    """)
    return


@app.cell
def _():
    [check] = published.query("""
        with neighbours as (
            select
                session_id = lag(session_id) over visitor as is_same_session,
                event_at <= lag(window_end_at - (session_ended_at - event_at)) over visitor as is_within_gap
            from analytics.fct_page_views
            window visitor as (partition by session_key order by event_at, event_id)
        )

        select
            (select count(*) from neighbours where is_same_session != is_within_gap) as wrong_splits,
            (select sum(page_views)::bigint from analytics.fct_sessions)
            - (select count(*) from analytics.fct_page_views) as lost_page_views,
            (select count(distinct session_id) from analytics.fct_page_views)
            - (select count(*) from analytics.fct_sessions) as lost_sessions
    """).to_pylist()
    assert check == {"wrong_splits": 0, "lost_page_views": 0, "lost_sessions": 0}, check
    check
    return


if __name__ == "__main__":
    app.run()
