# Checks the plan with a mocked provider, without Google Cloud: `terraform test` or `tofu test`.
mock_provider "google" {
  mock_resource "google_service_account" {
    defaults = {
      name   = "projects/my-project/serviceAccounts/warehouse@my-project.iam.gserviceaccount.com"
      email  = "warehouse@my-project.iam.gserviceaccount.com"
      member = "serviceAccount:warehouse@my-project.iam.gserviceaccount.com"
    }
  }
}

variables {
  project = "my-project"
  image   = "europe-west1-docker.pkg.dev/my-project/images/event-warehouse@sha256:0000000000000000000000000000000000000000000000000000000000000000"
}

run "pulled" {
  assert {
    condition     = contains(keys(google_pubsub_topic.stream), "clicks") && !contains(keys(google_pubsub_topic.stream), "users")
    error_message = "Topics are those of the contracts with transport pubsub."
  }
  assert {
    condition     = google_pubsub_subscription.landing["clicks"].name == "clicks-landing"
    error_message = "Subscriptions are named as SUBSCRIPTIONS defaults."
  }
  assert {
    condition     = length(google_pubsub_topic.dead_letter) == 0 && length(google_pubsub_subscription.landing["clicks"].push_config) == 0
    error_message = "No dead letters and no push unless asked for."
  }
  assert {
    condition     = contains([for env in google_cloud_run_v2_job.this["land"].template[0].template[0].containers[0].env : "${env.name}=${env.value}"], "STREAMS=${jsonencode(keys(google_pubsub_topic.stream))}")
    error_message = "Without Kafka, only the streams of Pub/Sub are landed."
  }
  assert {
    condition     = !contains(keys(google_bigquery_dataset_iam_member.this), "raw serve")
    error_message = "serve does not read raw."
  }
}

run "pushed_with_dead_letters" {
  variables {
    push_endpoint        = "https://warehouse.example.com/push"
    dead_letter_attempts = 5
  }
  assert {
    condition     = google_pubsub_subscription.landing["clicks"].push_config[0].oidc_token[0].audience == "https://warehouse.example.com/push"
    error_message = "Pushes are signed for the endpoint."
  }
  assert {
    condition     = google_pubsub_subscription.dead_letter["clicks"].name == "clicks-dead-letter"
    error_message = "Each dead letter topic has a subscription that keeps its messages."
  }
}

run "with_kafka_and_a_key" {
  variables {
    kafka_config_secret  = "kafka"
    pseudonym_key_secret = "pseudonym-key"
    dataset_prefix       = "dev_"
    serve_invokers       = ["group:analysts@example.com"]
  }
  assert {
    condition     = google_cloud_run_v2_job.this["land"].template[0].template[0].volumes[0].secret[0].secret == "kafka"
    error_message = "land has Kafka's properties."
  }
  assert {
    condition     = google_bigquery_dataset.this["raw"].dataset_id == "dev_raw"
    error_message = "Datasets have the prefix."
  }
}

run "an_image_without_digest_is_rejected" {
  command = plan
  variables {
    image = "event-warehouse:latest"
  }
  expect_failures = [var.image]
}
