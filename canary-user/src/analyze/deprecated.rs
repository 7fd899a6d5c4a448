//! Fields that Istio is going to drop.
use serde_json::Value;

use super::context::{Context, Finding, Report, list, spec};
use crate::diagnostic::Severity;

pub(super) fn run(context: &Context<'_>, report: &mut Report) {
    for object in context.networking("VirtualService") {
        for (index, rule) in list(spec(object), "http").iter().enumerate() {
            let percent = rule.pointer("/fault/delay/percent").and_then(Value::as_f64).unwrap_or_default();
            if percent > 0.0 {
                report.add(Finding {
                    object,
                    severity: Severity::Warning,
                    code: "IST0002",
                    field: format!("spec.http[{index}].fault.delay.percent"),
                    message: "`fault.delay.percent` is deprecated".to_owned(),
                    remedy: format!("write `percentage: {{value: {percent}}}`"),
                });
            }
        }
    }
    for object in context.networking("Sidecar") {
        if spec(object).pointer("/outboundTrafficPolicy/egressProxy").is_some_and(|value| !value.is_null()) {
            report.add(Finding {
                object,
                severity: Severity::Warning,
                code: "IST0002",
                field: "spec.outboundTrafficPolicy.egressProxy".to_owned(),
                message: "`outboundTrafficPolicy.egressProxy` is deprecated".to_owned(),
                remedy: "remove it; a VirtualService for the mesh can route egress".to_owned(),
            });
        }
    }
}
