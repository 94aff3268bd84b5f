resource "google_pubsub_topic" "stream" {
  for_each   = local.pubsub_streams
  name       = each.value.topic
  depends_on = [google_project_service.this]
}

resource "google_pubsub_subscription" "landing" {
  for_each                   = local.pubsub_streams
  name                       = each.value.subscription
  topic                      = google_pubsub_topic.stream[each.key].id
  ack_deadline_seconds       = var.push_endpoint == null ? 60 : 120
  message_retention_duration = "604800s"

  expiration_policy {
    ttl = "" # never expires, even if nobody pulls for months
  }

  dynamic "push_config" {
    for_each = var.push_endpoint == null ? [] : [var.push_endpoint]
    content {
      push_endpoint = push_config.value
      oidc_token {
        service_account_email = google_service_account.this["push"].email
        audience              = push_config.value
      }
    }
  }

  dynamic "dead_letter_policy" {
    for_each = var.dead_letter_attempts == null ? [] : [var.dead_letter_attempts]
    content {
      dead_letter_topic     = google_pubsub_topic.dead_letter[each.key].id
      max_delivery_attempts = dead_letter_policy.value
    }
  }
}

# -- dead letters, where asked for --------------------------------------------------------------------------------------

locals {
  dead_letter_streams = var.dead_letter_attempts == null ? {} : local.pubsub_streams
  pubsub_agent        = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
}

resource "google_pubsub_topic" "dead_letter" {
  for_each   = local.dead_letter_streams
  name       = "${each.value.topic}-dead-letter"
  depends_on = [google_project_service.this]
}

# A topic without a subscription drops its messages.
resource "google_pubsub_subscription" "dead_letter" {
  for_each                   = local.dead_letter_streams
  name                       = "${each.value.topic}-dead-letter"
  topic                      = google_pubsub_topic.dead_letter[each.key].id
  message_retention_duration = "2678400s" # 31 days, the maximum

  expiration_policy {
    ttl = ""
  }
}

# Pub/Sub's own account moves messages from the subscription to the dead letter topic.
resource "google_pubsub_topic_iam_member" "dead_letter" {
  for_each = local.dead_letter_streams
  topic    = google_pubsub_topic.dead_letter[each.key].id
  role     = "roles/pubsub.publisher"
  member   = local.pubsub_agent
}

resource "google_pubsub_subscription_iam_member" "dead_letter" {
  for_each     = local.dead_letter_streams
  subscription = google_pubsub_subscription.landing[each.key].id
  role         = "roles/pubsub.subscriber"
  member       = local.pubsub_agent
}
