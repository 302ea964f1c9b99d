# Installs Firnline on machines that are there already, over SSH. It needs no provider.
locals {
  unit     = file("${path.module}/../systemd/firnline@.service")
  instance = merge([for name, m in var.machines : { for c in m.components : "${name}/${c}" => { machine = name, component = c } }]...)
}

resource "terraform_data" "binary" {
  for_each         = var.machines
  triggers_replace = [filesha256(var.binary), local.unit, nonsensitive(sha256(jsonencode(var.bucket))), each.value.address]

  connection {
    host        = each.value.address
    user        = var.ssh_user
    private_key = var.ssh_private_key
  }

  provisioner "file" {
    source      = var.binary
    destination = "/tmp/firnline"
  }

  provisioner "file" {
    content     = local.unit
    destination = "/tmp/firnline@.service"
  }

  provisioner "file" {
    content     = var.bucket == null ? "" : yamlencode(var.bucket)
    destination = "/tmp/firnline-bucket.yml"
  }

  provisioner "remote-exec" {
    inline = [
      "set -eu",
      "id firnline >/dev/null 2>&1 || sudo useradd --system --home-dir /var/lib/firnline --shell /usr/sbin/nologin firnline",
      "sudo install -D -m 0755 /tmp/firnline /usr/local/bin/firnline",
      "sudo install -D -m 0644 /tmp/firnline@.service /etc/systemd/system/firnline@.service",
      "sudo install -D -m 0640 -g firnline /tmp/firnline-bucket.yml /etc/firnline/bucket.yml",
      "rm -f /tmp/firnline /tmp/firnline@.service /tmp/firnline-bucket.yml",
      "sudo systemctl daemon-reload",
    ]
  }
}

resource "terraform_data" "component" {
  for_each = local.instance
  input = {
    host      = var.machines[each.value.machine].address
    user      = var.ssh_user
    component = each.value.component
  }
  triggers_replace = [terraform_data.binary[each.value.machine].id, local.config[each.key]]

  connection {
    host        = self.input.host
    user        = self.input.user
    private_key = var.ssh_private_key
  }

  provisioner "file" {
    content     = local.config[each.key]
    destination = "/tmp/firnline-${each.value.component}.yml"
  }

  provisioner "remote-exec" {
    inline = [
      "set -eu",
      "sudo install -D -m 0640 -g firnline /tmp/firnline-${each.value.component}.yml /etc/firnline/${each.value.component}.yml",
      "rm -f /tmp/firnline-${each.value.component}.yml",
      "sudo systemctl enable firnline@${each.value.component}",
      "sudo systemctl restart firnline@${each.value.component}",
    ]
  }
}

locals {
  # What is specific goes before what is general.
  config = {
    for key, i in local.instance : key => yamlencode(merge(
      nonsensitive(var.bucket != null) ? { "objstore.config-file" = "/etc/firnline/bucket.yml" } : {},
      lookup(var.flags, i.component, {}),
      lookup(var.machines[i.machine].flags, i.component, {}),
    ))
  }
}
