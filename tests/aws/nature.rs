//! What EC2 does and moto does not.
//!
//! Always: a group is not deleted while an instance is in it or another group names it, an address in use is
//! not given out, and `DryRun` checks parameters before permissions. If a test asks for it: new and removed
//! things are known late, instances take time to terminate, vCPUs are counted, and too many calls are refused.

use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::{
    model::Node,
    proxy::Call,
    refusals::{Ask, Refusal, ids, in_use, taken, validate},
    xml::Element,
};

/// Each call that lists something, the element with the list, and the id of an item.
const LISTS: [(&str, &str, &str); 4] = [
    ("ec2:DescribeInstances", "instancesSet", "instanceId"),
    ("ec2:DescribeSecurityGroups", "securityGroupInfo", "groupId"),
    ("ec2:DescribeKeyPairs", "keySet", "keyName"),
    (
        "ec2:DescribeNetworkInterfaces",
        "networkInterfaceSet",
        "networkInterfaceId",
    ),
];

/// The number of vCPUs of every type that tests launch.
const VCPUS: u32 = 2;

#[derive(Default)]
pub(crate) struct Nature {
    settings: Mutex<Settings>,
    state: Mutex<State>,
    /// Launches are counted one after the other.
    launching: Mutex<()>,
}

#[derive(Default, Clone)]
struct Settings {
    lag: Duration,
    ending: Duration,
    vcpus: Option<u32>,
    bucket: Option<Bucket>,
}

/// The number of calls at once, and of calls a second.
#[derive(Clone, Copy)]
struct Bucket {
    holds: f64,
    refill: f64,
}

#[derive(Default)]
struct State {
    /// New things, by id or a key pair's name.
    made: BTreeMap<String, Instant>,
    /// Each thing as it was last listed, and those that were removed since.
    listed: BTreeMap<String, Element>,
    removed: BTreeMap<String, Instant>,
    /// When each terminating instance has terminated.
    ending: BTreeMap<String, Instant>,
    bucket: Option<(f64, Instant)>,
    reads: usize,
}

impl Nature {
    /// A new thing is unknown for half of that time. In the other half, it is sometimes missing or without its
    /// tags. A removed thing is listed for the whole time.
    pub(crate) fn lag(&self, lag: Duration) {
        self.settings.lock().unwrap().lag = lag;
    }

    pub(crate) fn end_after(&self, ending: Duration) {
        self.settings.lock().unwrap().ending = ending;
    }

    /// The quota of Service Quotas, to which launches are held.
    pub(crate) fn quota(&self, vcpus: u32) {
        self.settings.lock().unwrap().vcpus = Some(vcpus);
    }

    pub(crate) fn throttle(&self, holds: f64, refill: f64) {
        self.settings.lock().unwrap().bucket = Some(Bucket { holds, refill });
    }

    /// Handles a call: refuses it, answers it, or lets the server do so and changes the answer.
    pub(crate) fn act(
        &self,
        call: &Call,
        ask: Ask<'_>,
        server: &dyn Fn(&str) -> Result<Element, Vec<u8>>,
    ) -> Result<Result<Element, Vec<u8>>, Refusal> {
        let parameters = Node::of_query(&call.body);
        let guard = call.is("RunInstances").then(|| self.launching.lock());
        self.throttled()?;
        self.end_what_is_due(ask);
        self.unknown(call, &parameters)?;
        if call.dry_run {
            validate(call, &parameters, ask)?;
        }
        if call.is("DeleteSecurityGroup") {
            in_use(parameters.get("GroupId").unwrap_or_default(), ask)?;
        }
        if call.is("RunInstances") {
            taken(&parameters, ask)?;
            self.over_quota(1, ask)?;
        }
        if call.is("StartInstances") {
            self.over_quota(parameters.items("InstanceId").len(), ask)?;
        }
        if call.is("TerminateInstances")
            && let Some(answer) = self.begin_to_end(&parameters)
        {
            return Ok(Ok(answer));
        }
        let answer = server(&self.in_any_state(call));
        drop(guard);
        Ok(answer.map(|answer| self.as_known(call, &parameters, answer)))
    }

    fn throttled(&self) -> Result<(), Refusal> {
        let Some(Bucket { holds, refill }) = self.settings.lock().unwrap().bucket else {
            return Ok(());
        };
        let mut state = self.state.lock().unwrap();
        let (left, at) = state.bucket.unwrap_or((holds, Instant::now()));
        let left = (left + at.elapsed().as_secs_f64() * refill).min(holds);
        let enough = left >= 1.0;
        let left = if enough { left - 1.0 } else { left };
        state.bucket = Some((left, Instant::now()));
        match enough {
            true => Ok(()),
            false => Err(("RequestLimitExceeded", "Request limit exceeded.".into())),
        }
    }

    /// The answer of Service Quotas, if a test has set one.
    pub(crate) fn quota_in_json(&self, call: &Call) -> Option<String> {
        let vcpus = self.settings.lock().unwrap().vcpus?;
        let asked = call.action == "servicequotas:GetServiceQuota";
        asked.then(|| format!("{{\"Quota\": {{\"Value\": {vcpus}.0}}}}"))
    }

    fn over_quota(&self, more: usize, ask: Ask<'_>) -> Result<(), Refusal> {
        let Some(most) = self.settings.lock().unwrap().vcpus else {
            return Ok(());
        };
        let there = ask("Action=DescribeInstances");
        let runs = |it: &&&Element| {
            let state = it.child("instanceState").map_or("", |it| it.word("name"));
            matches!(state, "pending" | "running")
        };
        let runs = instances(&there).iter().filter(runs).count();
        match u32::try_from(runs + more).unwrap() * VCPUS > most {
            true => Err((
                "VcpuLimitExceeded",
                format!(
                    "You have requested more vCPU capacity than your current vCPU limit of {most} allows for the instance bucket that the specified instance type belongs to."
                ),
            )),
            false => Ok(()),
        }
    }

    // --- Slow to end ------------------------------------------------------------------------------------

    /// The answer, if instances take their time.
    fn begin_to_end(&self, parameters: &Node) -> Option<Element> {
        let ending = self.settings.lock().unwrap().ending;
        if ending.is_zero() {
            return None;
        }
        let mut set = Element::new("instancesSet", "");
        for id in parameters.items("InstanceId") {
            let id = id.text.clone().unwrap_or_default();
            let mut item = Element::new("item", "");
            item.children.push(Element::new("instanceId", &id));
            item.children.push(state("currentState", SHUTTING_DOWN));
            item.children
                .push(state("previousState", ("16", "running")));
            set.children.push(item);
            let mut state = self.state.lock().unwrap();
            state.ending.entry(id).or_insert(Instant::now() + ending);
        }
        let mut answer = Element::new("TerminateInstancesResponse", "");
        answer.children.push(set);
        Some(answer)
    }

    fn end_what_is_due(&self, ask: Ask<'_>) {
        let mut state = self.state.lock().unwrap();
        let due = state.ending.iter().filter(|(_, at)| **at <= Instant::now());
        let due: Vec<String> = due.map(|(id, _)| id.clone()).collect();
        for id in due {
            ask(&format!("Action=TerminateInstances&InstanceId.1={id}"));
            state.ending.remove(&id);
        }
    }

    /// The call, with its filters for states left to [`Self::as_known`].
    fn in_any_state(&self, call: &Call) -> String {
        const ANY: [&str; 6] = [
            "pending",
            "running",
            "shutting-down",
            "terminated",
            "stopping",
            "stopped",
        ];
        let mut pairs: Vec<String> = call.body.split('&').map(str::to_owned).collect();
        if self.state.lock().unwrap().ending.is_empty() || !call.is("DescribeInstances") {
            return call.body.clone();
        }
        let filter = pairs
            .iter()
            .find_map(|it| it.strip_suffix(".Name=instance-state-name"));
        if let Some(filter) = filter.map(str::to_owned) {
            pairs.retain(|it| !it.starts_with(&format!("{filter}.Value.")));
            let any = (1..).zip(ANY);
            pairs.extend(any.map(|(n, it): (usize, _)| format!("{filter}.Value.{n}={it}")));
        }
        pairs.join("&")
    }

    // --- Known late -------------------------------------------------------------------------------------

    /// Refuses calls that name something which is not known yet.
    fn unknown(&self, call: &Call, parameters: &Node) -> Result<(), Refusal> {
        let lag = self.settings.lock().unwrap().lag;
        let state = self.state.lock().unwrap();
        let fresh = |id: &str| state.made.get(id).is_some_and(|at| at.elapsed() < lag / 2);
        for (id, code) in ids(parameters) {
            if fresh(id) {
                return Err((code, format!("{id} does not exist")));
            }
        }
        match parameters.get("KeyName") {
            Some(name) if call.is("RunInstances") && fresh(name) => Err((
                "InvalidKeyPair.NotFound",
                format!("The key pair '{name}' does not exist"),
            )),
            _ => Ok(()),
        }
    }

    /// An answer, as EC2 gives it at this moment.
    fn as_known(&self, call: &Call, parameters: &Node, mut answer: Element) -> Element {
        let lag = self.settings.lock().unwrap().lag;
        let mut state = self.state.lock().unwrap();
        let made = match call.action.as_str() {
            "ec2:RunInstances" => answer.all("instanceId"),
            "ec2:CreateSecurityGroup" => answer.all("groupId"),
            "ec2:ImportKeyPair" => answer.all("keyName"),
            _ => Vec::new(),
        };
        for id in made {
            state.removed.remove(&id.text);
            state
                .made
                .entry(id.text.clone())
                .or_insert_with(Instant::now);
        }
        let removed = match call.action.as_str() {
            "ec2:DeleteSecurityGroup" => parameters.get("GroupId"),
            "ec2:DeleteKeyPair" => parameters.get("KeyName"),
            _ => None,
        };
        if let Some(id) = removed {
            state.made.remove(id);
            state.removed.insert(id.to_owned(), Instant::now());
        }
        let Some((_, list, id)) = LISTS.iter().find(|it| it.0 == call.action) else {
            return answer;
        };
        state.reads += 1;
        answer.each_mut(list, &mut |list| {
            state.follow(list, id, parameters, lag);
        });
        answer
    }
}

impl State {
    /// Changes a list to what EC2 would answer now.
    fn follow(&mut self, list: &mut Element, id: &str, parameters: &Node, lag: Duration) {
        let filters = parameters.items("Filter");
        let values = |name: &str| {
            let filter = filters.iter().find(|it| it.get("Name") == Some(name))?;
            let values = filter.items("Value");
            Some(
                values
                    .iter()
                    .filter_map(|it| it.text.clone())
                    .collect::<Vec<_>>(),
            )
        };
        let (cluster, states) = (values("tag:pgherd:cluster"), values("instance-state-name"));
        let ending = &self.ending;
        for item in &mut list.children {
            if id == "instanceId" && item.child("cpuOptions").is_none() {
                item.children.push(cpu_options());
            }
            if ending.contains_key(item.word(id)) {
                *item.child_mut("instanceState").unwrap() = state("instanceState", SHUTTING_DOWN);
            }
        }
        let reads = self.reads;
        let made = &self.made;
        list.children.retain_mut(|item| {
            let name = item
                .child("instanceState")
                .map(|it| it.word("name").to_owned());
            let wanted = states.as_ref().zip(name);
            if wanted.is_some_and(|(states, name)| !states.contains(&name)) {
                return false;
            }
            let age = made.get(item.word(id)).map_or(lag, Instant::elapsed);
            if age >= lag {
                return true;
            }
            if cluster.is_none()
                && let Some(tags) = item.child_mut("tagSet")
            {
                tags.children.clear();
            }
            age >= lag / 2 && (cluster.is_none() || reads.is_multiple_of(2))
        });
        for item in &list.children {
            self.listed.insert(item.word(id).to_owned(), item.clone());
        }
        let gone = self.removed.iter().filter(|(_, at)| at.elapsed() < lag);
        for item in gone.filter_map(|(id, _)| self.listed.get(id)) {
            let of_it = |tag: &&Element| {
                let cluster = cluster.as_ref().and_then(|it| it.first());
                tag.word("key") == "pgherd:cluster"
                    && Some(&tag.word("value").to_owned()) == cluster
            };
            if item.child(id).is_some() && item.all("item").iter().any(of_it) {
                list.children.push(item.clone());
            }
        }
    }
}

const SHUTTING_DOWN: (&str, &str) = ("32", "shutting-down");

fn state(element: &str, (code, name): (&str, &str)) -> Element {
    let mut state = Element::new(element, "");
    state.children.push(Element::new("code", code));
    state.children.push(Element::new("name", name));
    state
}

/// Of a type with as many vCPUs as the tests' types have. EC2 reports that for each instance, and moto does
/// not.
fn cpu_options() -> Element {
    let mut options = Element::new("cpuOptions", "");
    options.children.push(Element::new("coreCount", "1"));
    options.children.push(Element::new("threadsPerCore", "2"));
    options
}

pub(crate) fn instances(answer: &Element) -> Vec<&Element> {
    let sets = answer.all("instancesSet").into_iter();
    sets.flat_map(|it| &it.children).collect()
}
