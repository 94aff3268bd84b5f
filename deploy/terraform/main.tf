# The warehouse on Google Cloud: Pub/Sub -> Cloud Run jobs (land, build) -> BigQuery -> Cloud Run service (serve).
# docs/deploy.md shows how to apply it, and lists what was verified.

terraform {
  required_version = ">= 1.6"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 7.0, < 8.0"
    }
  }
}

provider "google" {
  project = var.project
  region  = var.region
}

data "google_project" "this" {}

locals {
  # The streams come from the contracts; topics and subscriptions get the default names of the settings.
  contracts = {
    for file in fileset("${path.module}/../../streams", "*.yml") :
    trimsuffix(file, ".yml") => yamldecode(file("${path.module}/../../streams/${file}"))
  }
  pubsub_streams = {
    for name, contract in local.contracts : name => {
      topic        = try(contract.topic, name)
      subscription = try(contract.subscription, "${try(contract.topic, name)}-landing")
    } if contract.transport == "pubsub"
  }
  datasets = toset(["raw", "staging", "intermediate", "analytics", "snapshots"])

  services = toset([
    "artifactregistry.googleapis.com",
    "bigquery.googleapis.com",
    "bigquerystorage.googleapis.com",
    "cloudscheduler.googleapis.com",
    "pubsub.googleapis.com",
    "run.googleapis.com",
    "secretmanager.googleapis.com",
  ])
}

resource "google_project_service" "this" {
  for_each           = local.services
  service            = each.value
  disable_on_destroy = false
}
