locals {
  environment = merge(
    {
      WAREHOUSE      = "bigquery"
      GCP_PROJECT    = var.project
      GCP_LOCATION   = var.location
      DATASET_PREFIX = var.dataset_prefix
      PUBSUB_PROJECT = var.project
    },
    # Without Kafka, only the streams of Pub/Sub can be landed.
    var.kafka_config_secret == null
    ? { STREAMS = jsonencode(keys(local.pubsub_streams)) }
    : { KAFKA_CONFIG_FILE = "/secrets/kafka.properties" },
  )
  jobs = {
    land  = { schedule = var.land_schedule, timeout = "3600s", memory = "2Gi" }
    build = { schedule = var.build_schedule, timeout = var.build_timeout, memory = "2Gi" }
  }
}

resource "google_cloud_run_v2_job" "this" {
  for_each            = local.jobs
  name                = "event-warehouse-${each.key}"
  location            = var.region
  deletion_protection = false
  depends_on          = [google_project_service.this, google_secret_manager_secret_iam_member.this]

  template {
    template {
      service_account = google_service_account.this[each.key].email
      timeout         = each.value.timeout
      max_retries     = 0 # the next scheduled run continues

      containers {
        image = var.image
        args  = [each.key]
        resources {
          limits = { cpu = "2", memory = each.value.memory }
        }

        dynamic "env" {
          for_each = local.environment
          content {
            name  = env.key
            value = env.value
          }
        }
        dynamic "env" {
          for_each = each.key == "land" && var.pseudonym_key_secret != null ? [var.pseudonym_key_secret] : []
          content {
            name = "PSEUDONYM_KEY"
            value_source {
              secret_key_ref {
                secret  = env.value
                version = "latest"
              }
            }
          }
        }

        dynamic "volume_mounts" {
          for_each = each.key == "build" ? ["/data"] : []
          content {
            name       = "published"
            mount_path = volume_mounts.value
          }
        }
        dynamic "volume_mounts" {
          for_each = each.key == "land" && var.kafka_config_secret != null ? ["/secrets"] : []
          content {
            name       = "kafka"
            mount_path = volume_mounts.value
          }
        }
      }

      dynamic "volumes" {
        for_each = each.key == "build" ? [google_storage_bucket.published.name] : []
        content {
          name = "published"
          gcs {
            bucket        = volumes.value
            mount_options = ["uid=10001", "gid=10001"]
          }
        }
      }
      dynamic "volumes" {
        for_each = each.key == "land" && var.kafka_config_secret != null ? [var.kafka_config_secret] : []
        content {
          name = "kafka"
          secret {
            secret = volumes.value
            items {
              path    = "kafka.properties"
              version = "latest"
            }
          }
        }
      }
    }
  }
}

resource "google_cloud_scheduler_job" "this" {
  for_each  = google_cloud_run_v2_job.this
  name      = each.value.name
  region    = var.region
  schedule  = local.jobs[each.key].schedule
  time_zone = "Etc/UTC"

  http_target {
    http_method = "POST"
    uri         = "https://run.googleapis.com/v2/${each.value.id}:run"
    oauth_token {
      service_account_email = google_service_account.this["schedule"].email
    }
  }
}

resource "google_cloud_run_v2_service" "serve" {
  name                = "event-warehouse-serve"
  location            = var.region
  deletion_protection = false
  ingress             = "INGRESS_TRAFFIC_ALL"
  depends_on          = [google_project_service.this, google_secret_manager_secret_iam_member.this]

  template {
    service_account       = google_service_account.this["serve"].email
    execution_environment = "EXECUTION_ENVIRONMENT_GEN2" # required to mount a bucket

    scaling {
      min_instance_count = 0
      max_instance_count = 4
    }

    containers {
      image = var.image
      args  = ["serve", "--host", "0.0.0.0", "--port", "8000"]
      ports {
        container_port = 8000
      }
      resources {
        limits = { cpu = "1", memory = "1Gi" }
      }

      dynamic "env" {
        for_each = local.environment
        content {
          name  = env.key
          value = env.value
        }
      }
      env {
        name = "SERVE_TOKENS"
        value_source {
          secret_key_ref {
            secret  = var.serve_tokens_secret
            version = "latest"
          }
        }
      }

      startup_probe {
        period_seconds    = 5
        failure_threshold = 12
        # Not /healthz, which returns 503 until the first build: the service could not be created before it.
        tcp_socket {
          port = 8000
        }
      }

      volume_mounts {
        name       = "published"
        mount_path = "/data"
      }
    }

    volumes {
      name = "published"
      gcs {
        bucket        = google_storage_bucket.published.name
        read_only     = true
        mount_options = ["uid=10001", "gid=10001"]
      }
    }
  }
}
