# One service account per task, each with only the permissions that its task needs.
resource "google_service_account" "this" {
  for_each = {
    land     = "lands messages in the dataset raw"
    build    = "builds and publishes the marts"
    serve    = "answers queries"
    schedule = "starts the jobs"
    push     = "signs what Pub/Sub pushes"
  }
  account_id   = "event-warehouse-${each.key}"
  display_name = "Event warehouse: ${each.value}"
}

locals {
  members = { for task, account in google_service_account.this : task => account.member }

  # Permissions per dataset. `land` and `build` create raw tables that are missing.
  dataset_roles = merge(
    { "raw land" = { dataset = "raw", task = "land", role = "roles/bigquery.dataEditor" } },
    { "analytics land" = { dataset = "analytics", task = "land", role = "roles/bigquery.dataViewer" } }, # `status`
    { for dataset in local.datasets : "${dataset} build" => { dataset = dataset, task = "build", role = "roles/bigquery.dataEditor" } },
    { for dataset in local.datasets : "${dataset} serve" => { dataset = dataset, task = "serve", role = "roles/bigquery.dataViewer" } if dataset != "raw" },
  )
  project_roles = {
    "land jobs"   = { task = "land", role = "roles/bigquery.jobUser" }
    "build jobs"  = { task = "build", role = "roles/bigquery.jobUser" }
    "build reads" = { task = "build", role = "roles/bigquery.readSessionUser" }
    "serve jobs"  = { task = "serve", role = "roles/bigquery.jobUser" }
    "serve reads" = { task = "serve", role = "roles/bigquery.readSessionUser" }
  }
  secret_readers = merge(
    { "tokens serve" = { secret = var.serve_tokens_secret, task = "serve" } },
    var.pseudonym_key_secret == null ? {} : { "pseudonyms land" = { secret = var.pseudonym_key_secret, task = "land" } },
    var.kafka_config_secret == null ? {} : { "kafka land" = { secret = var.kafka_config_secret, task = "land" } },
  )
}

resource "google_bigquery_dataset_iam_member" "this" {
  for_each   = local.dataset_roles
  dataset_id = google_bigquery_dataset.this[each.value.dataset].dataset_id
  role       = each.value.role
  member     = local.members[each.value.task]
}

resource "google_project_iam_member" "this" {
  for_each = local.project_roles
  project  = var.project
  role     = each.value.role
  member   = local.members[each.value.task]
}

resource "google_pubsub_subscription_iam_member" "land" {
  for_each     = local.pubsub_streams
  subscription = google_pubsub_subscription.landing[each.key].id
  role         = "roles/pubsub.subscriber"
  member       = local.members["land"]
}

# `land` reads the settings of each subscription, to report a deleted topic.
resource "google_pubsub_subscription_iam_member" "land_views" {
  for_each     = local.pubsub_streams
  subscription = google_pubsub_subscription.landing[each.key].id
  role         = "roles/pubsub.viewer"
  member       = local.members["land"]
}

# Lets Pub/Sub sign pushes as the push account.
resource "google_service_account_iam_member" "push" {
  count              = var.push_endpoint == null ? 0 : 1
  service_account_id = google_service_account.this["push"].name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = local.pubsub_agent
}

resource "google_storage_bucket_iam_member" "build" {
  bucket = google_storage_bucket.published.name
  role   = "roles/storage.objectUser"
  member = local.members["build"]
}

resource "google_storage_bucket_iam_member" "serve" {
  bucket = google_storage_bucket.published.name
  role   = "roles/storage.objectViewer"
  member = local.members["serve"]
}

resource "google_secret_manager_secret_iam_member" "this" {
  for_each  = local.secret_readers
  secret_id = each.value.secret
  role      = "roles/secretmanager.secretAccessor"
  member    = local.members[each.value.task]
}

resource "google_cloud_run_v2_job_iam_member" "schedule" {
  for_each = google_cloud_run_v2_job.this
  name     = each.value.name
  location = each.value.location
  role     = "roles/run.invoker"
  member   = local.members["schedule"]
}

resource "google_cloud_run_v2_service_iam_member" "serve" {
  for_each = toset(var.serve_invokers)
  name     = google_cloud_run_v2_service.serve.name
  location = google_cloud_run_v2_service.serve.location
  role     = "roles/run.invoker"
  member   = each.value
}
