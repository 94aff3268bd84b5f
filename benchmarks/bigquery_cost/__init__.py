"""What a day costs on BigQuery, estimated without BigQuery.

`builds` sends the statements of two builds to Google's analyzer, which finds the columns and partitions they read.
`prices` weighs the columns in a simulated week. `document` writes both into docs/bigquery.md.
"""
