"""How fast landing, builds and the endpoints are, and what BigQuery costs, on paper."""
