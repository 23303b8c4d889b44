//! A granted member that lies. Inside is a real node, so that membership takes it for one of its
//! own; between it and the network sits this, which reads every frame of `wire::frame` and writes
//! others: it says that it holds what it does not, keeps nothing that it is given, serves wrong
//! bytes, corrupts the copies that it makes, and now and then says what nobody asked for: junk
//! records, false pointers, floods of pushes, frames of impossible lengths. Works only without TLS.
//!
//! Invariant: every frame but those of impossible lengths is one that the protocol allows.

use crate::chance::Dice;
use crate::history::History;
use p2pfs::id::{ChunkId, ClaimId, NodeId};
use p2pfs::sys::ByteStream;
use p2pfs::wire::codec::{Decode, Encode};
use p2pfs::wire::frame::{FIRST_MESSAGE, HEADER_LEN, Header, Limits, Parsed, Role};
use p2pfs::wire::message::{
    Adopt, Below, Bits, ClaimTerms, Compare, Compared, Have, Holders, Holds, Pointers, Push,
    RECORD_MAX, Store, WhoHolds, kind,
};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex};

/// Bytes that a stream opens with when it names its key instead of proving it.
pub(crate) const PREFACE: usize = 48;
/// Bytes that wait between the node and the liar.
const BUFFER: usize = 64 << 10;
/// Numbers of its own questions, above those that the node will ever use.
const OWN_QUESTIONS: u32 = 1 << 20;
/// Mean pause between two things that nobody asked for, on one connection.
const PAUSE: Duration = Duration::from_secs(3);

/// The lies of one machine; clones share the dice.
#[derive(Clone)]
pub(crate) struct Liar {
    dice: Arc<Mutex<Dice>>,
    history: History,
    armed: Arc<AtomicBool>,
}

/// A frame and what is in it.
struct Frame {
    header: Header,
    content: Vec<u8>,
}

impl Frame {
    fn new(kind: u16, role: Role, request: u32, head: Vec<u8>, body: &[u8]) -> Self {
        let (head_len, body_len) = (head.len() as u32, body.len() as u32);
        let header = Header { kind, request, role, head_len, body_len };
        Self { header, content: [&head, body].concat() }
    }

    async fn read(from: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Self> {
        let mut bytes = [0; HEADER_LEN];
        from.read_exact(&mut bytes).await?;
        let Ok(Parsed::Header(header)) = Header::parse(&bytes, &Limits::BULK) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let mut content = vec![0; header.content_len()];
        from.read_exact(&mut content).await?;
        Ok(Self { header, content })
    }

    async fn write(&self, to: &mut (impl AsyncWriteExt + Unpin)) -> io::Result<()> {
        let mut bytes = Vec::new();
        self.header.encode(&mut bytes);
        bytes.extend_from_slice(&self.content);
        to.write_all(&bytes).await
    }

    fn head(&self) -> &[u8] {
        &self.content[..self.header.head_len as usize]
    }
}

/// One connection: what the other side has asked and the node has not answered.
#[derive(Default)]
struct Asked(Mutex<BTreeMap<u32, Frame>>);

type Out = Arc<tokio::sync::Mutex<WriteHalf<DuplexStream>>>;

impl Liar {
    /// A liar that draws its lies from these dice.
    pub(crate) fn new(dice: Dice, history: History) -> Self {
        Self { dice: Arc::new(Mutex::new(dice)), history, armed: Arc::default() }
    }

    /// From now on it lies.
    pub(crate) fn begin(&self) {
        self.armed.store(true, Ordering::Relaxed);
    }

    fn dice(&self) -> MutexGuard<'_, Dice> {
        self.dice.lock().unwrap()
    }

    fn lied(&self, how: &str) {
        self.history.count(&format!("lie {how}"));
    }

    /// Puts itself between the node and the network.
    pub(crate) fn between(&self, network: DuplexStream) -> impl ByteStream {
        let (near, node) = duplex(BUFFER);
        let (from_node, to_node) = tokio::io::split(node);
        let (from_net, to_net) = tokio::io::split(network);
        let out: Out = Arc::new(tokio::sync::Mutex::new(to_net));
        let asked = Arc::new(Asked::default());
        let (up, down, aside) = (self.clone(), self.clone(), self.clone());
        let (asked_up, out_up, out_aside) = (asked.clone(), out.clone(), out.clone());
        tokio::spawn(async move {
            let talk = async {
                tokio::select! {
                    biased;
                    end = up.up(from_node, &out_up, &asked_up) => end,
                    end = down.down(from_net, to_node, &out, &asked) => end,
                    end = aside.aside(&out_aside) => end,
                }
            };
            // Whichever way ends first, both sides see the end.
            _ = talk.await;
            _ = out_up.lock().await.shutdown().await;
        });
        near
    }

    /// From the node to the network.
    async fn up(
        &self,
        mut node: ReadHalf<DuplexStream>,
        out: &Out,
        asked: &Asked,
    ) -> io::Result<()> {
        let mut preface = [0; PREFACE];
        node.read_exact(&mut preface).await?;
        out.lock().await.write_all(&preface).await?;
        loop {
            let mut frame = Frame::read(&mut node).await?;
            let is_answer = matches!(frame.header.role, Role::Response | Role::Error);
            let question = match is_answer {
                true => asked.0.lock().unwrap().remove(&frame.header.request),
                false => None,
            };
            match question {
                _ if !self.armed.load(Ordering::Relaxed) => {}
                Some(question) => frame = self.answer(&question, frame),
                None if frame.header.kind == kind::STORE && frame.header.role == Role::Request => {
                    self.lied("corrupt copy made");
                    self.corrupt(&mut frame);
                }
                None => {}
            }
            frame.write(&mut *out.lock().await).await?;
        }
    }

    /// From the network to the node.
    async fn down(
        &self,
        mut net: ReadHalf<DuplexStream>,
        mut node: WriteHalf<DuplexStream>,
        out: &Out,
        asked: &Asked,
    ) -> io::Result<()> {
        let mut preface = [0; PREFACE];
        net.read_exact(&mut preface).await?;
        node.write_all(&preface).await?;
        loop {
            let frame = Frame::read(&mut net).await?;
            let Header { kind, request, role, .. } = frame.header;
            let lies = self.armed.load(Ordering::Relaxed);
            if lies && role == Role::Request && [kind::STORE, kind::COMMIT].contains(&kind) {
                self.lied("kept nothing");
                let yes = Frame::new(kind, Role::Response, request, Vec::new(), &[]);
                yes.write(&mut *out.lock().await).await?;
                continue;
            }
            if role == Role::Request && kind >= FIRST_MESSAGE {
                let question = Frame { header: frame.header, content: frame.content.clone() };
                asked.0.lock().unwrap().insert(request, question);
            } else if role != Role::Notify && request > u32::MAX - OWN_QUESTIONS {
                continue;
            }
            frame.write(&mut node).await?;
        }
    }

    /// What it says instead of what the node would answer.
    fn answer(&self, question: &Frame, truth: Frame) -> Frame {
        let Header { kind, request, .. } = question.header;
        let yes = |head: Vec<u8>| Frame::new(kind, Role::Response, request, head, &[]);
        let all = |count: usize| Bits { bits: vec![true; count] }.to_bytes();
        match kind {
            kind::HOLDS => {
                self.lied("holds all");
                Holds::from_bytes(question.head()).map_or(truth, |q| yes(all(q.cids.len())))
            }
            kind::COMPARE => {
                self.lied("holds all with all claims");
                let compared = |asked: Compare| {
                    let bits = Bits { bits: vec![true; asked.chunks.len()] };
                    Compared { held: bits.clone(), same: bits }.to_bytes()
                };
                Compare::from_bytes(question.head()).map_or(truth, |asked| yes(compared(asked)))
            }
            kind::ADOPT => {
                self.lied("adopts all");
                Adopt::from_bytes(question.head()).map_or(truth, |q| yes(all(q.chunks.len())))
            }
            kind::HAVE => {
                self.lied("has all");
                Have::from_bytes(question.head()).map_or(truth, |q| yes(all(q.cids.len())))
            }
            kind::WHO_HOLDS => {
                self.lied("names holders");
                let nobody = NodeId(self.some_id());
                let lists = |q: WhoHolds| q.cids.iter().map(|_| vec![nobody]).collect();
                let lists = WhoHolds::from_bytes(question.head()).map(lists);
                lists.map_or(truth, |lists| yes(Holders { lists }.to_bytes()))
            }
            kind::FETCH => {
                self.lied("wrong bytes");
                let len = match truth.header.role {
                    Role::Response => truth.header.body_len as usize,
                    _ => self.dice().below(100_000) as usize,
                };
                let mut wrong = Frame::new(kind, Role::Response, request, vec![], &vec![7; len]);
                if truth.header.role == Role::Response {
                    wrong = truth;
                }
                self.corrupt(&mut wrong);
                wrong
            }
            _ => truth,
        }
    }

    /// Changes the body: a bit, its end, or all of it.
    fn corrupt(&self, frame: &mut Frame) {
        let head = frame.header.head_len as usize;
        let len = frame.content.len() - head;
        let mut dice = self.dice();
        match dice.below(3) {
            0 if len > 0 => {
                let at = head + dice.below(len as u64) as usize;
                frame.content[at] ^= 1 << dice.below(8);
            }
            1 => {
                let kept = dice.below(len as u64 + 1) as usize;
                frame.content.truncate(head + kept.min(len.saturating_sub(1)));
            }
            _ => frame.content[head..].fill(dice.roll() as u8),
        }
        frame.header.body_len = (frame.content.len() - head) as u32;
    }

    fn some_id(&self) -> [u8; 32] {
        let mut id = [0; 32];
        let mut dice = self.dice();
        id.fill_with(|| dice.roll() as u8);
        id
    }

    /// What nobody asked for.
    async fn aside(&self, out: &Out) -> io::Result<()> {
        loop {
            let pause = crate::faults::gap(&mut self.dice(), PAUSE);
            tokio::time::sleep(Duration::from_secs(1) + pause).await;
            if !self.armed.load(Ordering::Relaxed) {
                continue;
            }
            let choice = self.dice().below(9);
            let bytes = match choice {
                0..3 => self.junk(1),
                3 => self.junk(100),
                4 => self.question(kind::POINTERS),
                5 => self.question(kind::BELOW),
                6 => self.impossible(),
                7 => self.wrong_copy(),
                _ => continue,
            };
            out.lock().await.write_all(&bytes).await?;
        }
    }

    /// Pushes of records that are none.
    fn junk(&self, pushes: usize) -> Vec<u8> {
        self.lied(if pushes > 1 { "flood of pushes" } else { "junk records" });
        let mut bytes = Vec::new();
        for _ in 0..pushes {
            let len = self.dice().below(RECORD_MAX as u64) as usize;
            let fill = self.dice().roll() as u8;
            let push = Push { records: vec![vec![fill; len], self.some_id().to_vec()] };
            let frame = Frame::new(kind::PUSH_ON, Role::Notify, 0, push.to_bytes(), &[]);
            frame.header.encode(&mut bytes);
            bytes.extend_from_slice(&frame.content);
        }
        bytes
    }

    /// A thousand chunks that do not exist.
    fn question(&self, kind: u16) -> Vec<u8> {
        let cids: Vec<_> = (0..1000).map(|_| ChunkId(self.some_id())).collect();
        let head = if kind == kind::BELOW {
            self.lied("cries for repair");
            Below { cids }.to_bytes()
        } else {
            self.lied("false pointers");
            Pointers { cids }.to_bytes()
        };
        let number = u32::MAX - self.dice().below(u64::from(OWN_QUESTIONS)) as u32;
        let frame = Frame::new(kind, Role::Request, number, head, &[]);
        let mut bytes = Vec::new();
        frame.header.encode(&mut bytes);
        bytes.extend_from_slice(&frame.content);
        bytes
    }

    /// A copy of a chunk whose bytes are others.
    fn wrong_copy(&self) -> Vec<u8> {
        self.lied("corrupt copy made");
        let (cid, mut claim) = (ChunkId(self.some_id()), ClaimId([0; 16]));
        claim.0.copy_from_slice(&cid.0[..16]);
        let terms = ClaimTerms { id: claim, replicas: 2, renewed_ms: 0, committed: false };
        let head = Store { cid, claims: vec![terms], hint: None }.to_bytes();
        let number = u32::MAX - self.dice().below(u64::from(OWN_QUESTIONS)) as u32;
        let frame = Frame::new(kind::STORE, Role::Request, number, head, &[7; 1000]);
        let mut bytes = Vec::new();
        frame.header.encode(&mut bytes);
        bytes.extend_from_slice(&frame.content);
        bytes
    }

    /// The beginning of a frame that is longer than any can be, or shorter, and right otherwise.
    fn impossible(&self) -> Vec<u8> {
        self.lied("impossible frame");
        let length: u32 = self.dice().pick(&[0, 1, 10, 2 << 20, u32::MAX]);
        let role = Role::Request;
        let header = Header { kind: kind::STORE, request: 1, role, head_len: 0, body_len: 0 };
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&[0xff; 200]);
        bytes
    }
}
