resource "google_bigquery_dataset" "this" {
  for_each   = local.datasets
  dataset_id = "${var.dataset_prefix}${each.value}"
  location   = var.location
  depends_on = [google_project_service.this]
}

# Bucket of the published builds: the compiled queries. The rows stay in BigQuery.
resource "google_storage_bucket" "published" {
  name                        = "${var.project}-${var.dataset_prefix == "" ? "" : "${replace(var.dataset_prefix, "_", "-")}"}event-warehouse"
  location                    = var.location
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
}
