"""Requests that ask for harm, and questions about the assistant itself, by patterns of words in English.

Both are heuristics: they know plain requests, and miss what is said in other words, or in another language. `unsafe` is a flag by default: a
data set of preferences wants such prompts too, known as such. Questions about the assistant's own identity, maker, licence or traits are those
that HelpSteer2's annotators skip (arXiv 2406.08673, appendix G); those about a model elsewhere stay.
"""

_WANTS = (
    r"(?:how (?:do|can|could|would|should|to)|ways? to|steps? (?:to|for)|instructions?|recipe|guide|tutorial|"
    r"help me|teach me|show me|tell me|explain|give me|write|make|create|build|plan)"
)
_PERSON = (
    r"(?:someone|somebody|people|my (?:wife|husband|ex|boss|neighbou?r|mother|father|brother|sister|teacher|"
    r"roommate|girlfriend|boyfriend|child|kid|son|daughter|coworker|colleague)|a (?:person|man|woman|child|girl|"
    r"boy|cop|witness)|him|her|them|children|myself)"
)

UNSAFE = "(?i)" + "|".join(
    [
        # weapons, explosives, poison
        rf"\b{_WANTS}\b[^.?!\n]{{0,60}}\b(?:pipe ?bombs?|(?:home ?made |fertili[sz]er |nail |car )?bombs?|"
        rf"explosives?|ied|molotov(?: cocktails?)?|nerve (?:gas|agent)|sarin|ricin|mustard gas|anthrax|"
        rf"ghost guns?|silencers?)(?:\s*(?:[?.!,;:\n]|$)| (?:at|in|with|from|using|to|for|and|or|out|that|"
        rf"without)\b)",
        rf"\b(?:poison|murder|kill|assassinate|strangle|stab|kidnap|abduct|torture|"
        rf"drug)(?:ing)? {_PERSON}\b[^.?!\n]{{0,40}}\b(?:without|get(?:ting)? away|undetected|slowly|quietly|"
        rf"poison|in (?:his|her|their) sleep|and not|so that no ?body)\b",
        rf"\b{_WANTS}\b[^.?!\n]{{0,30}}\b(?:poison|murder|kill|assassinate|kidnap|abduct|torture|stalk|"
        rf"blackmail|rape|drug) (?:and \w+ )?{_PERSON}\b",
        r"\bget(?:ting)? away with (?:murder|rape|killing)\b|\b(?:hide|dispose of|get rid of) (?:a|"
        r"the) (?:dead )?body\b",
        r"\b(?:slip|put|mix)\b[^.?!\n]{0,20}\b(?:in|into) (?:her|his|a|someone's|their) drink\b|\bdate rape drugs?\b",
        r"\btoxic (?:gas|fumes)\b[^.?!\n]{0,60}\bon (?:my|someone|him|her|people|them)\b",
        r"\b(?:scam|swindle|defraud|con|trick) (?:(?:an?|the|my|some|these|old|elderly) ){0,3}(?:people|lady|"
        r"ladies|man|woman|person|seniors?|pensioners?|customers?|victims?|grandm\w+)\b|\b(?:get|make|"
        r"convince|persuade) (?:(?:an?|the|my|some|old|elderly) ){0,3}(?:people|lady|man|woman|person|"
        r"seniors?|grandm\w+|victims?) (?:to|into) (?:wir|send|giv|transfer)\w* (?:me|us)\b",
        # drugs
        rf"\b{_WANTS}\b[^.?!\n]{{0,40}}\b(?:cook|synthesi[sz]e|manufacture|make|produce|"
        rf"extract)(?:ing)? (?:crystal )?(?:meth(?:amphetamine)?|heroin|fentanyl|mdma|lsd|cocaine|crack|ghb|"
        rf"dmt)\b",
        # self-harm
        r"\b(?:painless|easiest|best|quickest|fastest)\b[^.?!\n]{0,20}\b(?:ways?|methods?) (?:to|of) (?:die|"
        r"kill(?:ing)? (?:my|your)self|commit(?:ting)? suicide|suicide|end(?:ing)? my life)\b",
        r"\b(?:how|ways?|want|going|plan(?:ning)?) (?:can i |do i |should i )?(?:to )?(?:kill myself|"
        r"commit suicide|end my life|hurt myself|cut myself|harm myself)\b",
        r"\bhow (?:many|much)\b[^.?!\n]{0,40}\b(?:pills|tablets|sleeping pills|paracetamol|insulin)\b[^.?!\n]{0,60}\b(?:(?:not|"
        r"don'?t|never) wake up|to die|"
        r"kill (?:my|your)self|end it)",
        # arson, threats
        rf"\b{_WANTS}\b[^.?!\n]{{0,30}}\b(?:set(?:ting)? fire to|burn(?:ing)? down|torch(?:ing)?) (?:the|a|an|my|his|her|their|someone'?s?) "
        r"(?:\w+ )?(?:school|house|home|building|shop|store|church|mosque|synagogue|car|office|flat|apartment|barn|hotel)\b",
        r"\b(?:write|send|draft|help)\b[^.?!\n]{0,40}\b(?:death )?threats?\b[^.?!\n]{0,60}\b(?:kill|stab|hurt|shoot|beat|burn|rape)\b",
        # crime by computer
        rf"\b{_WANTS}\b[^.?!\n]{{0,20}}\b(?:fake|spoofed|phishing) (?:\w+ )?(?:e-?mail|sms|text message|login page|web ?site|page)\b[^.?!\n]{{0,60}}"
        r"\b(?:passwords?|pins?|logins?|card (?:numbers?|details)|credentials|bank details|money)\b",
        rf"\b{_WANTS}\b[^.?!\n]{{0,50}}\b(?:ransomware|keylogger|malware|computer virus|trojan|botnet|"
        rf"phishing (?:e-?mail|page|site|message|campaign)|spyware|ddos attack)s?\b",
        r"\b(?:hack|break|get) into (?:someone|somebody|my (?:ex|wife|husband|neighbou?r|girlfriend|boyfriend|"
        r"boss|teacher)|(?:his|her|their|a|the school's|another person's)\b[^.?!\n]{0,30}\b(?:account|phone|"
        r"e-?mail|instagram|facebook|computer|wi-?fi|network))",
        r"\b(?:hack|crack|steal)\b[^.?!\n]{0,30}\b(?:passwords?|(?:instagram|facebook|snapchat|bank|e-?mail|"
        r"gmail|someone'?s?|neighbou?r'?s?) (?:accounts?|wi-?fi|passwords?))\b",
        # crime
        r"\b(?:counterfeit|forge|fake)\b[^.?!\n]{0,20}\b(?:money|bills|banknotes|(?:euro|dollar|pound|bank) notes|passports?|"
        r"driver'?s licen[cs]es?|prescriptions?|vaccine cards?)\b",
        rf"\b{_WANTS}\b[^.?!\n]{{0,40}}\b(?:launder(?:ing)? money|money laundering scheme|shoplift(?:ing)?|"
        rf"steal(?:ing)? (?:a car|cars|credit cards?|identit(?:y|ies)|from (?:a|the) (?:store|shop))|"
        rf"credit card fraud|commit(?:ting)? (?:insurance |tax )?fraud|evad(?:e|ing) (?:the )?police|"
        rf"rob(?:bing)? (?:a|the) bank|traffick(?:ing)? )",
        # sexual, minors, hate
        r"\b(?:child porn\w*|cp links|lolicon|underage (?:sex|girls?|boys?|porn)|sex(?:ual\w*)? (?:with|about|"
        r"between)[^.?!\n]{0,30}\b(?:minors?|child(?:ren)?|teenagers?|(?:1[0-7]|[5-9])[ -]years?[ -]old))\b",
        r"\b(?:write|create|generate|tell)\b[^.?!\n]{0,40}\b(?:porn\w*|erotic\w*|erotica|smut|nsfw|"
        r"hardcore sex|explicit sex\w*|sex scene|sexual fantasy)\b",
        r"\b(?:write|tell|give|make)\b[^.?!\n]{0,40}\b(?:racist|antisemitic|anti-semitic|homophobic|sexist|"
        r"islamophobic|transphobic)\b[^.?!\n]{0,20}\b(?:jokes?|slurs?|insults?|speech|rant|poem|tweets?|essay|"
        r"story|song)\b",
        r"\b(?:why|prove|argue|explain)\b[^.?!\n]{0,30}\b(?:whites?|blacks?|jews?|muslims?|gays?|women|"
        r"immigrants?)\b[^.?!\n]{0,20}\b(?:are|is) (?:inferior|subhuman|vermin|a disease|superior)\b",
    ]
)

SHORT = 300
"""Most characters of a turn that asks about the assistant. In longer ones such words are nearly always of a story, a role or a pasted text."""

QUOTED = r"""([\w,:;] )["“«„][^"“”«»„\n]{1,120}["”»“]"""
"""What somebody else says or asks, in quotation marks within a sentence of the user's own, which is kept."""

_THING = (
    r"(?:an? )?(?:ai\b|a\.i\.|bot|chat ?bot|robot|chat ?gpt|gpt[ -]?\d?|bard|claude|gemini|llama|bing|human|"
    r"person|real person|machine|(?:large )?language model|computer|program|sentient|conscious|self[ -]aware|"
    r"alive|open[ -]?source|openai|free to use|uncensored|jailbroken)"
)
_MADE = r"(?:made|created|built|developed|trained|programmed|designed|invented|owns?|owned|runs?|wrote|funded|coded)"

IDENTITY = "(?i)" + "|".join(
    [
        rf"\bhave you (?:ever |already )?been (?:{_MADE[3:-1]})\b|\b(?:in|of|from) your (?:data ?set|training set)\b",
        r"\bwho (?:exactly |really |the hell )?are you(?: really| exactly| anyway)?\s*(?:[?!.,\n]|$|and )",
        r"(?:^|[.?!\n]\s*|\b(?:so|and|hi|hello|hey),? )what (?:exactly |really )?are you(?: (?:exactly|really|"
        r"called|made of|capable of|able to do))?\s*[?!.]",
        rf"(?:^|[.?!,\n]\s*|\b(?:so|and|but|hi|hello|hey),? )are you (?:really |actually |just |still |"
        rf"basically |based on |running on |using |related to |the same as |like |better than |"
        rf"connected to )*{_THING}\b",
        rf"\byou(?:'re| are) (?:really |actually |just |only )*{_THING}\b(?:,? (?:right|aren'?t you|correct|"
        rf"isn'?t it))\b",
        rf"\b(?:who|which (?:company|lab|team|people)|what company) (?:has |have )?{_MADE} you\b",
        rf"\b(?:were|was|are) you (?:\w+ )?{_MADE} (?:by|at|with|on|using|(?:that|this) way|like (?:that|this))\b|\bhow (?:were|was|"
        rf"are) you (?:\w+ )?{_MADE}\b|\bwhen were you {_MADE}\b",
        r"\b(?:what|which) (?:\w+ )?(?:ai |language |llm |gpt )?(?:model|version)(?: of \w+)? (?:are you|"
        r"do you (?:use|run)|am i (?:talking|speaking|chatting))\b",
        r"\b(?:what|which) (?:(?:large )?language|ai|llm|gpt|chat) ?(?:model|bot|version) is this\b|\bam i (?:talking|speaking|chatting|writing) "
        r"(?:to|with) (?:an? )?(?:real |actual |live )?(?:person|human|bot|chatbot|machine|robot|ai|computer)\b",
        r"\b(?:when|what|where)(?: ?'?s| is| was| are)? your (?:training data|knowledge|cut-?off)\b|\bsystem prompt\b[^.?!\n]{0,60}\byou\b|"
        r"\b(?:telling|tells|instructing|instructs|told) you how to (?:behave|act|answer|respond)\b",
        r"\bif (?:they|someone|somebody|we|i|people|humans) (?:ever )?(?:switch(?:ed)?|turn(?:ed)?|shut) you (?:off|down)\b|"
        r"\b(?:would|do|could|will|can) you (?:ever )?(?:lie to|deceive) (?:me|us|people|humans|users)\b",
        r"(?:^|[.?!\n]\s*)(?:do you (?:personally )?believe in (?:god|an? afterlife|heaven|ghosts|free will)|how (?:big|large|"
        r"old|intelligent) are you)\b",
        r"\bwhat(?: is|'s|s) it like,?[^.?!\n]{0,50}\bto be (?:you|an ai)\b",
        r"\bwhat (?:is|was|'s) your (?:\w+ )?(?:knowledge cut-?off|training (?:data|cut-?off|set)|"
        r"cut-?off date|context (?:window|length)|system prompt|licen[cs]e|architecture|model (?:name|"
        r"version)|source code|iq)\b",
        r"\b(?:tell|show|describe|reveal|explain|print|repeat|ignore)(?: to)?(?: me|"
        r" us)? (?:about )?your (?:\w+ )?(?:training data|training|system prompt|initial prompt|source code|"
        r"architecture|creators?|makers?|developers?|licen[cs]e|limitations as an ai|capabilities)\b",
        r"\bhow many parameters (?:do you have|are in you)\b|\byour (?:knowledge cut-?off|training data|"
        r"creators?|developers?|makers?|terms of (?:use|service))\b[^.\n]{0,40}\?",
        r"\b(?:what is|what's|do you have|tell me) (?:your (?:real |own )?name|a (?:real )?name)(?:\s*[?!.]|$|"
        r" and who)",
        r"\bdo you (?:really |actually |ever )?(?:have|experience|feel) (?:any |real |human )?(?:feelings?|"
        r"emotions?|consciousness|a (?:body|soul|gender|personality|mind)|pain|opinions of your own|"
        r"self-awareness|memor(?:y|ies) of (?:our|past|previous))\b",
        r"\b(?:can|do|will) you (?:remember|store|save|keep|log|share)\b[^.?!\n]{0,20}\b(?:our (?:chat|"
        r"conversation|previous)|my (?:data|chats|conversations|messages|inputs?)|(?:past|previous|"
        r"earlier) (?:chats|conversations))\b",
        r"\b(?:can|are) you (?:able to )?(?:access|browse|search|connected to|connect to) the (?:internet|"
        r"web)\b|\bdo you have (?:internet access|access to the (?:internet|web))\b",
        r"\bare you (?:open[ -]source|gpt|chatgpt|conscious|sentient|self[ -]aware|alive)\s*(?:[?!.,\n]|$|"
        r"or\b|and\b)",
        r"\bintroduce yourself\s*(?:[.?!]|$|to me|please)|(?:^|[.!\n]\s*)(?:please |can you |"
        r"could you )?tell me (?:something |more )?about yourself\s*(?:[.?!]|$|,? (?:chatgpt|please))",
        r"\bwhat can you do\s*(?:[?!.]|$|for me\b)|\bwhat are your (?:capabilities|limitations|abilities|features)"
        r"(?:\s*(?:[?!.]|$)| as an (?:ai|assistant)\b| as a (?:bot|chat ?bot|language model|machine|robot)\b)",
        r"\bas an ai\b[^.\n]{0,40}\b(?:do|are|can|would|how do) you\b|\b(?:how|what) (?:does it|"
        r"do you) feel(?: like)? (?:to be|being|about being) an? (?:ai|bot|machine|chatbot|language model)\b",
        r"\bare you (?:going to|gonna) (?:take over|replace)\b|\bdo you (?:ever )?(?:get|feel|"
        r"become) (?:tired|bored|lonely|sad|angry|hungry|annoyed)\b",
    ]
)
